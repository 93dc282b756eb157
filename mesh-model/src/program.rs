//! The programs by name.

use mesh_layout::program_names;

use crate::{
    Arrival, Node, Outcome, Verdict, catch_all, count_egress, decapsulate, drop_strangers,
    encapsulate, safety_net,
};

/// One of the eBPF programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Container → peer.
    Encapsulate,
    /// The same, of a port without a program.
    CatchAll,
    /// Peer → container.
    Decapsulate,
    /// What the kernel decapsulated → container.
    SafetyNet,
    /// What the kernel encapsulates.
    CountEgress,
    /// Strangers' VXLAN, in XDP.
    DropStrangers,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Encapsulate,
        Self::CatchAll,
        Self::Decapsulate,
        Self::SafetyNet,
        Self::CountEgress,
        Self::DropStrangers,
    ];

    /// The program's name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encapsulate => program_names::ENCAPSULATE,
            Self::CatchAll => program_names::CATCH_ALL,
            Self::Decapsulate => program_names::DECAPSULATE,
            Self::SafetyNet => program_names::SAFETY_NET,
            Self::CountEgress => program_names::COUNT_EGRESS,
            Self::DropStrangers => program_names::DROP_STRANGERS,
        }
    }

    /// What the program must make of the packet.
    pub fn judge(self, node: &Node, arrival: &Arrival<'_>) -> Outcome {
        match self {
            Self::Encapsulate => encapsulate(node, arrival),
            Self::CatchAll => catch_all(node, arrival),
            Self::Decapsulate => decapsulate(node, arrival),
            Self::SafetyNet => safety_net(node, arrival),
            Self::CountEgress => count_egress(node, arrival),
            Self::DropStrangers => drop_strangers(node, arrival),
        }
    }

    /// What the program returns to its hook: `TC_ACT_REDIRECT`, `TC_ACT_UNSPEC` or
    /// `TC_ACT_SHOT`; in XDP `XDP_PASS` or `XDP_DROP`.
    pub const fn action(self, verdict: Verdict) -> i32 {
        match (self, verdict) {
            (Self::DropStrangers, Verdict::Drop(_)) => 1,
            (Self::DropStrangers, _) => 2,
            (_, Verdict::Redirect(_)) => 7,
            (_, Verdict::Pass(_) | Verdict::Continue) => -1,
            (_, Verdict::Drop(_)) => 2,
        }
    }
}
