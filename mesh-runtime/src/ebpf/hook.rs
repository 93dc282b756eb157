//! Which program belongs on which interface, and in which order.

use std::collections::BTreeMap;

use aya::programs::TcAttachType;
use mesh_layout::program_names;

use super::FastPathState;

/// The programs in the order in which they are attached: all that receive before those
/// that transmit, because a node that sends what it cannot yet receive lets new TCP
/// connections fail under a rule that drops what conntrack calls invalid. They are detached
/// in the reverse order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Role {
    SafetyNet,
    CountEgress,
    Decapsulate,
    /// Before the ports', which come one by one: it has their packets until then.
    CatchAll,
    Encapsulate,
}

impl Role {
    pub(super) const ALL: [Self; 5] = [
        Self::SafetyNet,
        Self::CountEgress,
        Self::Decapsulate,
        Self::CatchAll,
        Self::Encapsulate,
    ];

    /// The program's name in the object.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::SafetyNet => program_names::SAFETY_NET,
            Self::CountEgress => program_names::COUNT_EGRESS,
            Self::Decapsulate => program_names::DECAPSULATE,
            Self::CatchAll => program_names::CATCH_ALL,
            Self::Encapsulate => program_names::ENCAPSULATE,
        }
    }

    /// Whether the node's receiving depends on it.
    pub(super) const fn receives(self) -> bool {
        matches!(
            self,
            Self::SafetyNet | Self::CountEgress | Self::Decapsulate
        )
    }

    /// Whether it sends to peers, which must receive by then.
    pub(super) const fn transmits(self) -> bool {
        matches!(self, Self::CatchAll | Self::Encapsulate)
    }

    /// The side of the interface it is attached to.
    pub(super) const fn side(self) -> TcAttachType {
        match self {
            Self::CountEgress => TcAttachType::Egress,
            Self::SafetyNet | Self::Decapsulate | Self::CatchAll | Self::Encapsulate => {
                TcAttachType::Ingress
            }
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
    let mut hooks = BTreeMap::new();
    let mut add = |role, link: &u32, name: &String| {
        hooks.insert(Hook { role, link: *link }, name.clone());
    };
    add(Role::SafetyNet, &state.overlay.index, &state.overlay.name);
    add(Role::CountEgress, &state.overlay.index, &state.overlay.name);
    for (link, name) in &state.underlay {
        add(Role::Decapsulate, link, name);
    }
    add(Role::CatchAll, &state.bridge.index, &state.bridge.name);
    for (link, name) in &state.ports {
        add(Role::Encapsulate, link, name);
    }
    hooks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_receives_comes_before_what_transmits() {
        let mut roles = Role::ALL;
        roles.sort();
        assert_eq!(roles, Role::ALL);
        assert!(roles.is_sorted_by_key(|role| role.transmits() || !role.receives()));
        assert!(Role::ALL.map(Role::transmits).contains(&true));
    }
}
