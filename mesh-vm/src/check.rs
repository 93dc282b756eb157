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
    /// Both of the runtime's nftables tables, with the rule for kernels that know a port's bridge.
    ThePacketFilterHoldsItsTables,
    /// Small and full-sized packets, both ways, none of them through the VXLAN device.
    ContainersPingOverTheFastPath,
    /// A checksummed stream each way, none of it through the VXLAN device, and either side
    /// counts the same packets.
    TcpArrivesIntactOverTheFastPath,
    /// Both runtimes are killed under a flow and started again.
    AKilledRuntimeAndItsSuccessorLoseNoPacket,
    /// What a container forges with `CAP_NET_RAW` nobody hears, and it is counted by its reason.
    NoContainerSpeaksAsAnother,
    /// The same after the runtime was killed; and a container of a port that was made since then
    /// is no router.
    NorWhileNoRuntimeRuns,
    /// With `--fast-path off` every packet goes through the VXLAN device.
    WithoutTheFastPathTheKernelPathCarries,
    /// There the programs are still attached, and guard.
    NorWithoutTheFastPath,
    /// Nor do frames of the VLAN whose tag the bridge takes off, once it filters VLANs.
    NorBehindTagsThatTheBridgeTakesOff,
    /// With `--fast-path auto` and a way of attaching that this kernel does not offer, the node
    /// runs on the kernel path, says so once in its log, and shows why in its status.
    WhatCannotBeAttachedIsDoneWithout,
    /// Started without that option, the runtime attaches again.
    TheFastPathComesBack,
    /// The hosts' addresses move to VLANs on their cards, and the programs with them.
    AVlanCarriesTheFastPath,
    /// VXLAN of who is no peer reaches no container: on that VLAN, on others that have no address, of
    /// either kind, and without a tag; with the programs, after the runtime was killed, and with
    /// `--fast-path off`. Then the addresses move back.
    NoStrangerSpeaksOverAVlan,
    /// They move to bonds of two cards each, of which one loses its carrier under traffic.
    ABondCarriesTheFastPathOverWhicheverCardIsLeft,
    /// `--cleanup` removes devices, pins and filters.
    CleaningUpLeavesNothing,
    /// A whole mesh with control plane and agents, of which one host's packets are delayed and
    /// overtake each other (netem, which not every machine's own kernel has): the fault
    /// `delay-and-reordering` of mesh-faults.
    DelayAndReorderingLoseNothing,
}

impl Check {
    /// All of them, in their order.
    pub const ALL: [Self; 18] = [
        Self::TheProgramsLoadAndAttach,
        Self::ItAttachesTheWayTheKernelOffers,
        Self::ThePacketFilterHoldsItsTables,
        Self::ContainersPingOverTheFastPath,
        Self::TcpArrivesIntactOverTheFastPath,
        Self::AKilledRuntimeAndItsSuccessorLoseNoPacket,
        Self::NoContainerSpeaksAsAnother,
        Self::NorWhileNoRuntimeRuns,
        Self::WithoutTheFastPathTheKernelPathCarries,
        Self::NorWithoutTheFastPath,
        Self::NorBehindTagsThatTheBridgeTakesOff,
        Self::WhatCannotBeAttachedIsDoneWithout,
        Self::TheFastPathComesBack,
        Self::AVlanCarriesTheFastPath,
        Self::NoStrangerSpeaksOverAVlan,
        Self::ABondCarriesTheFastPathOverWhicheverCardIsLeft,
        Self::CleaningUpLeavesNothing,
        Self::DelayAndReorderingLoseNothing,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::TheProgramsLoadAndAttach => "the_programs_load_and_attach",
            Self::ItAttachesTheWayTheKernelOffers => "it_attaches_the_way_the_kernel_offers",
            Self::ThePacketFilterHoldsItsTables => "the_packet_filter_holds_its_tables",
            Self::NoContainerSpeaksAsAnother => "no_container_speaks_as_another",
            Self::NorWhileNoRuntimeRuns => "no_container_speaks_as_another_while_no_runtime_runs",
            Self::NorWithoutTheFastPath => "no_container_speaks_as_another_without_the_fast_path",
            Self::NorBehindTagsThatTheBridgeTakesOff => {
                "no_container_speaks_as_another_behind_tags_that_the_bridge_takes_off"
            }
            Self::ContainersPingOverTheFastPath => "containers_ping_over_the_fast_path",
            Self::TcpArrivesIntactOverTheFastPath => "tcp_arrives_intact_over_the_fast_path",
            Self::AKilledRuntimeAndItsSuccessorLoseNoPacket => {
                "a_killed_runtime_and_its_successor_lose_no_packet"
            }
            Self::WithoutTheFastPathTheKernelPathCarries => {
                "without_the_fast_path_the_kernel_path_carries"
            }
            Self::WhatCannotBeAttachedIsDoneWithout => "what_cannot_be_attached_is_done_without",
            Self::TheFastPathComesBack => "the_fast_path_comes_back",
            Self::AVlanCarriesTheFastPath => "a_vlan_carries_the_fast_path",
            Self::NoStrangerSpeaksOverAVlan => "no_stranger_speaks_over_a_vlan",
            Self::ABondCarriesTheFastPathOverWhicheverCardIsLeft => {
                "a_bond_carries_the_fast_path_over_whichever_card_is_left"
            }
            Self::CleaningUpLeavesNothing => "cleaning_up_leaves_nothing",
            Self::DelayAndReorderingLoseNothing => "delay_and_reordering_lose_nothing",
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
