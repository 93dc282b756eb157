//! The programs by name.

use mesh_layout::program_names;

use crate::{Arrival, Node, Outcome, count_egress, decapsulate, encapsulate, safety_net};

/// One of the eBPF programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Container → peer.
    Encapsulate,
    /// Peer → container.
    Decapsulate,
    /// What the kernel decapsulated → container.
    SafetyNet,
    /// What the kernel encapsulates.
    CountEgress,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Encapsulate,
        Self::Decapsulate,
        Self::SafetyNet,
        Self::CountEgress,
    ];

    /// The program's name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encapsulate => program_names::ENCAPSULATE,
            Self::Decapsulate => program_names::DECAPSULATE,
            Self::SafetyNet => program_names::SAFETY_NET,
            Self::CountEgress => program_names::COUNT_EGRESS,
        }
    }

    /// What the program must make of the packet.
    pub fn judge(self, node: &Node, arrival: &Arrival<'_>) -> Outcome {
        match self {
            Self::Encapsulate => encapsulate(node, arrival),
            Self::Decapsulate => decapsulate(node, arrival),
            Self::SafetyNet => safety_net(node, arrival),
            Self::CountEgress => count_egress(node, arrival),
        }
    }
}
