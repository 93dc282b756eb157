//! The kernel's network state: read it, compare it with what is wanted, change it.
//!
//! [`observe`] reads, [`plan`] compares (a pure function), [`apply`] changes. [`events`]
//! tells when to look again. [`containers`] looks into the namespaces of containers.

pub(crate) mod apply;
pub(crate) mod change;
pub(crate) mod containers;
pub(crate) mod events;
#[cfg(test)]
mod model;
pub(crate) mod namespace_events;
pub(crate) mod netlink;
pub(crate) mod observe;
pub(crate) mod observed;
pub(crate) mod plan;
pub(crate) mod port_holder;
pub(crate) mod qdisc;
pub(crate) mod sysctl;
pub(crate) mod underlay;
pub(crate) mod veth;

/// Routing protocol number of the routes this project makes (`RTPROT_*`, `rtm_protocol`).
///
/// It is how our routes are told from others': `ip route show proto 81` lists them. The
/// number is `0x51`, which neither the kernel's `rtnetlink.h` nor iproute2's `rt_protos`
/// assigns.
pub const ROUTE_PROTOCOL: u8 = 0x51;
