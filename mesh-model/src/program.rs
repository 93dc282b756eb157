//! The programs by name.

use mesh_layout::{EventProgram, PacketEvent, program_names};

use crate::{
    Arrival, Node, Outcome, Verdict, catch_all, count_egress, decapsulate, encapsulate, safety_net,
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
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Encapsulate,
        Self::CatchAll,
        Self::Decapsulate,
        Self::SafetyNet,
        Self::CountEgress,
    ];

    /// The program's name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encapsulate => program_names::ENCAPSULATE,
            Self::CatchAll => program_names::CATCH_ALL,
            Self::Decapsulate => program_names::DECAPSULATE,
            Self::SafetyNet => program_names::SAFETY_NET,
            Self::CountEgress => program_names::COUNT_EGRESS,
        }
    }

    /// What the program must make of the packet.
    pub fn judge(self, node: &Node, arrival: &Arrival<'_>) -> Outcome {
        let outcome = match self {
            Self::Encapsulate => encapsulate(node, arrival),
            Self::CatchAll => catch_all(node, arrival),
            Self::Decapsulate => decapsulate(node, arrival),
            Self::SafetyNet => safety_net(node, arrival),
            Self::CountEgress => count_egress(node, arrival),
        };
        Outcome {
            event: outcome.event.map(|event| PacketEvent {
                program: self.number() as u8,
                ..event
            }),
            ..outcome
        }
    }

    /// How events name the program.
    const fn number(self) -> EventProgram {
        match self {
            Self::Encapsulate => EventProgram::Encapsulate,
            Self::CatchAll => EventProgram::CatchAll,
            Self::Decapsulate => EventProgram::Decapsulate,
            Self::SafetyNet => EventProgram::SafetyNet,
            Self::CountEgress => EventProgram::CountEgress,
        }
    }

    /// What the program returns to its hook: `TC_ACT_REDIRECT`, `TC_ACT_UNSPEC` or
    /// `TC_ACT_SHOT`.
    pub const fn action(verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Redirect(_) => 7,
            Verdict::Pass(_) | Verdict::Continue => -1,
            Verdict::Drop(_) => 2,
        }
    }
}
