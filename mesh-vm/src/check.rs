//! What is checked on every kernel, known to both sides: the host counts a check that the
//! guest never came to as failed.

use serde::{Deserialize, Serialize};

use crate::series::Series;

/// A check, in the order in which they run: each builds on those before it. Where the fast path is
/// named in the documentation of one that runs without it as well, the kernel path takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// `quilt-runtime` loads its programs and attaches all three kinds of them.
    TheProgramsLoadAndAttach,
    /// tcx from Linux 6.6 on, clsact before: chosen without being told.
    ItAttachesTheWayTheKernelOffers,
    /// On a kernel that cannot have them: the node runs all the same, and shows in its status and as a
    /// problem from which kernel on there is a fast path.
    TheNodeSaysWhyItHasNoFastPath,
    /// Both of the runtime's nftables tables, with the rule for kernels that know a port's bridge.
    ThePacketFilterHoldsItsTables,
    /// Small and full-sized packets, both ways, none of them through the VXLAN device.
    ContainersPingOverTheFastPath,
    /// A checksummed stream each way, none of it through the VXLAN device, and either side
    /// counts the same packets.
    TcpArrivesIntactOverTheFastPath,
    /// On a kernel without it: small and full-sized packets and a checksummed stream, both ways,
    /// through the VXLAN device.
    TheKernelPathCarriesAlone,
    /// Both runtimes are killed under a flow and started again.
    AKilledRuntimeAndItsSuccessorLoseNoPacket,
    /// What a container forges with `CAP_NET_RAW` nobody hears, and it is counted by its reason. Without
    /// programs the packet filter holds it, and counts nothing by reason.
    NoContainerSpeaksAsAnother,
    /// The same after the runtime was killed; and a container of a port that was made since then
    /// is no router.
    NorWhileNoRuntimeRuns,
    /// Nor does one whose port came a moment ago: where programs are filters, it has none yet.
    NorWhenItJustCame,
    /// An `ingress` queueing discipline can be made at such a port, and what its filter says is done: such a container
    /// is listed as left to the kernel path. Its sibling's port gets a program.
    AContainerThatJustCameCanBePoliced,
    /// Debian's CNI plugin `bandwidth`, run after `quilt-cni` as engines chain them, makes its queueing disciplines at the
    /// port and holds back what goes either way; others keep their path, CHECK finds all in order, and DEL leaves nothing.
    AContainerOfBandwidthIsHeldBack,
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
    /// On a kernel without the fast path: VXLAN of who is no peer reaches no container, also after the
    /// runtime was killed.
    NoStrangerSpeaksToTheKernelPath,
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
    /// Those of a kernel, in their order.
    pub fn of(kernel: Series) -> &'static [Self] {
        Self::with(kernel.has_fast_path())
    }

    /// Those of kernels with the fast path, or without it.
    pub fn with(fast_path: bool) -> &'static [Self] {
        match fast_path {
            true => &Self::WITH_FAST_PATH,
            false => &Self::WITHOUT_FAST_PATH,
        }
    }

    const WITH_FAST_PATH: [Self; 21] = [
        Self::TheProgramsLoadAndAttach,
        Self::ItAttachesTheWayTheKernelOffers,
        Self::ThePacketFilterHoldsItsTables,
        Self::ContainersPingOverTheFastPath,
        Self::TcpArrivesIntactOverTheFastPath,
        Self::AKilledRuntimeAndItsSuccessorLoseNoPacket,
        Self::NoContainerSpeaksAsAnother,
        Self::NorWhileNoRuntimeRuns,
        Self::NorWhenItJustCame,
        Self::AContainerThatJustCameCanBePoliced,
        Self::AContainerOfBandwidthIsHeldBack,
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

    const WITHOUT_FAST_PATH: [Self; 8] = [
        Self::TheNodeSaysWhyItHasNoFastPath,
        Self::ThePacketFilterHoldsItsTables,
        Self::TheKernelPathCarriesAlone,
        Self::AKilledRuntimeAndItsSuccessorLoseNoPacket,
        Self::NoContainerSpeaksAsAnother,
        Self::AContainerOfBandwidthIsHeldBack,
        Self::NoStrangerSpeaksToTheKernelPath,
        Self::CleaningUpLeavesNothing,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::TheProgramsLoadAndAttach => "the_programs_load_and_attach",
            Self::ItAttachesTheWayTheKernelOffers => "it_attaches_the_way_the_kernel_offers",
            Self::TheNodeSaysWhyItHasNoFastPath => "the_node_says_why_it_has_no_fast_path",
            Self::TheKernelPathCarriesAlone => "the_kernel_path_carries_alone",
            Self::NoStrangerSpeaksToTheKernelPath => "no_stranger_speaks_to_the_kernel_path",
            Self::ThePacketFilterHoldsItsTables => "the_packet_filter_holds_its_tables",
            Self::NoContainerSpeaksAsAnother => "no_container_speaks_as_another",
            Self::NorWhileNoRuntimeRuns => "no_container_speaks_as_another_while_no_runtime_runs",
            Self::NorWhenItJustCame => "no_container_speaks_as_another_when_it_just_came",
            Self::AContainerThatJustCameCanBePoliced => "a_container_that_just_came_can_be_policed",
            Self::AContainerOfBandwidthIsHeldBack => "a_container_of_bandwidth_is_held_back",
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
    fn checks_come_in_their_order_and_each_has_a_name_of_its_own() {
        let mut all = std::collections::BTreeSet::<Check>::new();
        for fast_path in [false, true] {
            let checks = Check::with(fast_path);
            assert!(checks.is_sorted_by(|one, next| one < next), "{checks:?}");
            all.extend(checks);
        }
        let names: std::collections::BTreeSet<_> = all.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn kernels_without_the_fast_path_are_asked_for_nothing_that_needs_it() {
        let series = |text: &str| text.parse().unwrap();
        assert!(Check::of(series("6.1")).contains(&Check::TheProgramsLoadAndAttach));
        assert!(!Check::of(series("5.10")).contains(&Check::TheProgramsLoadAndAttach));
        assert!(Check::of(series("5.10")).contains(&Check::TheKernelPathCarriesAlone));
    }
}
