//! What is checked on every kernel, known to both sides: the host counts a check that the
//! guest never came to as failed.

use serde::{Deserialize, Serialize};

/// A check, in the order in which they run: each builds on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// `quilt-runtime` loads its programs and attaches all three kinds of them.
    TheProgramsLoadAndAttach,
    /// tcx from Linux 6.6 on, clsact before: chosen without being told.
    ItAttachesTheWayTheKernelOffers,
    /// Small and full-sized packets, both ways, none of them through the VXLAN device.
    ContainersPingOverTheFastPath,
    /// A checksummed stream each way, none of it through the VXLAN device, and either side
    /// counts the same packets.
    TcpArrivesIntactOverTheFastPath,
    /// Both runtimes are killed under a flow and started again.
    AKilledRuntimeAndItsSuccessorLoseNoPacket,
    /// With `--fast-path off` every packet goes through the VXLAN device.
    WithoutTheFastPathTheKernelPathCarries,
    /// Started without that option, the runtime attaches again.
    TheFastPathComesBack,
    /// The hosts' addresses move to VLANs on their cards, and the programs with them.
    AVlanCarriesTheFastPath,
    /// They move to bonds of two cards each, of which one loses its carrier under traffic.
    ABondCarriesTheFastPathOverWhicheverCardIsLeft,
    /// `--cleanup` removes devices, pins and filters.
    CleaningUpLeavesNothing,
}

impl Check {
    /// All of them, in their order.
    pub const ALL: [Self; 10] = [
        Self::TheProgramsLoadAndAttach,
        Self::ItAttachesTheWayTheKernelOffers,
        Self::ContainersPingOverTheFastPath,
        Self::TcpArrivesIntactOverTheFastPath,
        Self::AKilledRuntimeAndItsSuccessorLoseNoPacket,
        Self::WithoutTheFastPathTheKernelPathCarries,
        Self::TheFastPathComesBack,
        Self::AVlanCarriesTheFastPath,
        Self::ABondCarriesTheFastPathOverWhicheverCardIsLeft,
        Self::CleaningUpLeavesNothing,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::TheProgramsLoadAndAttach => "the_programs_load_and_attach",
            Self::ItAttachesTheWayTheKernelOffers => "it_attaches_the_way_the_kernel_offers",
            Self::ContainersPingOverTheFastPath => "containers_ping_over_the_fast_path",
            Self::TcpArrivesIntactOverTheFastPath => "tcp_arrives_intact_over_the_fast_path",
            Self::AKilledRuntimeAndItsSuccessorLoseNoPacket => {
                "a_killed_runtime_and_its_successor_lose_no_packet"
            }
            Self::WithoutTheFastPathTheKernelPathCarries => {
                "without_the_fast_path_the_kernel_path_carries"
            }
            Self::TheFastPathComesBack => "the_fast_path_comes_back",
            Self::AVlanCarriesTheFastPath => "a_vlan_carries_the_fast_path",
            Self::ABondCarriesTheFastPathOverWhicheverCardIsLeft => {
                "a_bond_carries_the_fast_path_over_whichever_card_is_left"
            }
            Self::CleaningUpLeavesNothing => "cleaning_up_leaves_nothing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_check_is_left_out_and_their_order_is_that_of_the_list() {
        assert!(Check::ALL.is_sorted_by(|one, next| one < next));
        let names: std::collections::BTreeSet<_> = Check::ALL.map(Check::name).into();
        assert_eq!(names.len(), Check::ALL.len());
    }
}
