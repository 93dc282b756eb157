//! Which program belongs on which interface, and in which order.

use std::collections::BTreeMap;

use aya::programs::TcAttachType;
use mesh_layout::program_names;

use super::FastPathState;

/// The programs in the order in which they are attached: all that receive before the one
/// that transmits, because a node that sends what it cannot yet receive lets new TCP
/// connections fail under a rule that drops what conntrack calls invalid. They are detached
/// in the reverse order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Role {
    SafetyNet,
    CountEgress,
    Decapsulate,
    Encapsulate,
}

impl Role {
    pub(super) const ALL: [Self; 4] = [
        Self::SafetyNet,
        Self::CountEgress,
        Self::Decapsulate,
        Self::Encapsulate,
    ];

    /// The program's name in the object.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::SafetyNet => program_names::SAFETY_NET,
            Self::CountEgress => program_names::COUNT_EGRESS,
            Self::Decapsulate => program_names::DECAPSULATE,
            Self::Encapsulate => program_names::ENCAPSULATE,
        }
    }

    /// The side of the interface it is attached to.
    pub(super) const fn attach_type(self) -> TcAttachType {
        match self {
            Self::CountEgress => TcAttachType::Egress,
            Self::SafetyNet | Self::Decapsulate | Self::Encapsulate => TcAttachType::Ingress,
        }
    }
}

/// A program on an interface. Ordered by role, so that iterating a map of hooks attaches in
/// the right order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hook {
    pub(super) role: Role,
    /// Interface index.
    pub(super) link: u32,
}

/// The hooks of a state, with the names of their interfaces.
pub(super) fn wanted(state: &FastPathState) -> BTreeMap<Hook, String> {
    let overlay = (state.overlay.index, &state.overlay.name);
    let on = |role, (link, name): (u32, &String)| (Hook { role, link }, name.clone());
    [on(Role::SafetyNet, overlay), on(Role::CountEgress, overlay)]
        .into_iter()
        .chain(
            state
                .underlay
                .iter()
                .map(|(link, name)| on(Role::Decapsulate, (*link, name))),
        )
        .chain(
            state
                .ports
                .iter()
                .map(|(link, name)| on(Role::Encapsulate, (*link, name))),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_receives_comes_before_what_transmits() {
        let mut roles = Role::ALL;
        roles.sort();
        assert_eq!(roles, Role::ALL);
        assert_eq!(roles[3], Role::Encapsulate);
    }
}
