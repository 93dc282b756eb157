//! The kind of each problem.

use mesh_problems::{Kind, catalog::dataplane as kinds};

use super::Problem;

impl Problem {
    /// Its kind.
    pub(crate) fn kind(&self) -> &'static Kind {
        match self {
            Self::NoHostAddress { .. } => &kinds::NO_HOST_ADDRESS,
            Self::HostAddressNotHere(_) => &kinds::HOST_ADDRESS_NOT_HERE,
            Self::NameTaken { .. } => &kinds::DEVICE_NAME_TAKEN,
            Self::Diverted { .. } => &kinds::POLICY_RULE,
            Self::Transformed(_) => &kinds::IPSEC_POLICY,
            Self::SmallMtu { .. } => &kinds::SMALL_MTU,
            Self::ForeignAddress { .. } => &kinds::FOREIGN_ADDRESS,
            Self::PartOfPeer { .. } => &kinds::FOREIGN_ROUTE_TO_PART,
            Self::PortTakenByVxlan { .. } => &kinds::VXLAN_TAKEN,
            Self::ForeignRoute { .. } => &kinds::FOREIGN_ROUTE,
            Self::ChangeFailed { .. } => &kinds::KERNEL_REFUSES,
            Self::Observe(_) => &kinds::KERNEL_UNREADABLE,
            Self::NoRoute(_) => &kinds::NO_ROUTE_TO_PEERS,
            Self::NarrowPeers(_) => &kinds::NARROW_PEERS,
            Self::StateNotKept(_) => &kinds::STATE_NOT_KEPT,
            Self::NotEthernet(_) => &kinds::UNDERLAY_NOT_ETHERNET,
            Self::Contested(_) => &kinds::ADDRESS_CONTESTED,
            Self::NoFirewall(_) => &kinds::NO_GUARD_RULES,
            Self::NoTranslation(_) => &kinds::NO_ADDRESS_TRANSLATION,
            Self::Masqueraded { .. } => &kinds::FOREIGN_MASQUERADE,
            Self::Blocked { .. } => &kinds::FOREIGN_FIREWALL,
            Self::Swallowed { .. } => &kinds::VXLAN_SWALLOWED,
            Self::Unguarded(_) => &kinds::NO_GUARD_PROGRAMS,
            Self::FastPath(_) => &kinds::FAST_PATH_REFUSED,
        }
    }
}
