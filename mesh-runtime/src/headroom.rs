//! Room before every packet of a container for the headers that encapsulation adds.
//!
//! A socket leaves as much room before a packet as the interface it sends from asks for, which
//! for a veth is next to none: whoever puts 50 bytes before the packet later, program or VXLAN
//! device, has to allocate its head anew and copy it. A bridge asks its ports to leave what the
//! most demanding of them needs (`br_set_headroom`), and a veth passes that on to its other
//! end, in the container (`veth_set_rx_headroom`). A VXLAN device needs what encapsulation
//! needs. So one of ours on the bridge, which is never up and carries nothing, saves every
//! packet of every container, there now or later, that allocation.
//!
//! Down, the device has no socket, and the bridge neither forwards to it nor learns from it.
//! Whoever brings it up finds it taken down again. Where it cannot be made, nothing is missing
//! but the saving.

use std::{fmt, net::Ipv4Addr};

use rtnetlink::{Handle, LinkUnspec, LinkVxlan};

use crate::{
    ebpf::Mac,
    netlink::{NetlinkError, answer},
    observed::{Link, LinkKind, Observed},
};

/// The device's name.
pub(crate) const NAME: &str = "quilt-headroom";
/// Its VNI, which together with name and MAC address says that it is ours: next to the last
/// there is, far from what overlays use.
pub(crate) const VNI: u32 = 0xff_fffe;
/// Its UDP port, which nobody opens while it is down.
pub(crate) const PORT: u16 = 4790;
/// Its MAC address. A bridge without one of its own takes the lowest of its ports', and this
/// is higher than the containers' usual ones.
pub(crate) const MAC: Mac = [0xfe, 0x51, 0, 0, 0, 0];

/// A change to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadroomChange {
    /// Create it as a port of the bridge, down.
    Create { mtu: u32 },
    /// Make it a port of the bridge.
    Join,
    /// Set its MTU, of which a bridge without one of its own takes the smallest of its ports'.
    SetMtu(u32),
    /// Take it down.
    SetDown,
    /// Delete it.
    Delete { index: u32 },
}

/// Whether this project made an interface for headroom.
pub(crate) fn is_ours(link: &Link) -> bool {
    link.name == NAME
        && link.mac == Some(MAC)
        && matches!(&link.kind, LinkKind::Vxlan(vxlan) if vxlan.vni == VNI)
}

/// What is to be done about the device, given the index of the bridge, if it is there yet, and
/// the MTU of the overlay. Nothing, if somebody else's interface has its name. Pure.
pub(crate) fn diff(observed: &Observed, bridge: Option<u32>, mtu: u32) -> Vec<HeadroomChange> {
    let Some(link) = observed.link_named(NAME) else {
        return vec![HeadroomChange::Create { mtu }];
    };
    if !is_ours(link) {
        return Vec::new();
    }
    let wrong = [
        (link.up, HeadroomChange::SetDown),
        (link.mtu != mtu, HeadroomChange::SetMtu(mtu)),
        (
            link.master.is_none() || link.master != bridge,
            HeadroomChange::Join,
        ),
    ];
    wrong
        .into_iter()
        .filter_map(|(is_wrong, change)| is_wrong.then_some(change))
        .collect()
}

/// Makes a change. `bridge` is the index of the bridge; nothing but deleting works without.
pub(crate) async fn apply(
    handle: &Handle,
    change: HeadroomChange,
    bridge: u32,
) -> Result<(), NetlinkError> {
    let device = || LinkUnspec::new_with_name(NAME);
    let message = match change {
        HeadroomChange::Create { mtu } => {
            let message = LinkVxlan::new(NAME, VNI)
                .port(PORT)
                // Needs no underlay interface, and would hear from nobody.
                .local(Ipv4Addr::LOCALHOST)
                .learning(false)
                .address(MAC.to_vec())
                .mtu(mtu)
                .controller(bridge);
            return answer(handle.link().add(message.build()).execute()).await;
        }
        HeadroomChange::Delete { index } => {
            return answer(handle.link().del(index).execute()).await;
        }
        HeadroomChange::Join => device().controller(bridge),
        HeadroomChange::SetMtu(mtu) => device().mtu(mtu),
        HeadroomChange::SetDown => device().down(),
    };
    answer(handle.link().change(message.build()).execute()).await
}

impl fmt::Display for HeadroomChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { mtu } => write!(f, "create {NAME} (MTU {mtu})"),
            Self::Join => write!(f, "make {NAME} a port of the bridge"),
            Self::SetMtu(mtu) => write!(f, "set the MTU of {NAME} to {mtu}"),
            Self::SetDown => write!(f, "take {NAME} down"),
            Self::Delete { .. } => write!(f, "delete {NAME}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Vxlan;

    const BRIDGE: u32 = 3;

    fn device() -> Link {
        let vxlan = Vxlan {
            vni: VNI,
            ..Vxlan::default()
        };
        Link {
            index: 7,
            name: NAME.to_owned(),
            kind: LinkKind::Vxlan(vxlan),
            mac: Some(MAC),
            mtu: 1450,
            up: false,
            master: Some(BRIDGE),
            far_end: None,
            filters_vlans: false,
            near_end: None,
            hairpin: false,
        }
    }

    fn planned(link: Link) -> Vec<HeadroomChange> {
        let observed = Observed {
            links: [(link.index, link)].into(),
            ..Observed::default()
        };
        diff(&observed, Some(BRIDGE), 1450)
    }

    #[test]
    fn what_is_right_is_left_alone() {
        assert_eq!(planned(device()), []);
    }

    #[test]
    fn what_somebody_changed_is_put_right() {
        let up = Link {
            up: true,
            ..device()
        };
        assert_eq!(planned(up), [HeadroomChange::SetDown]);
        let elsewhere = Link {
            master: None,
            mtu: 1500,
            ..device()
        };
        let expected = [HeadroomChange::SetMtu(1450), HeadroomChange::Join];
        assert_eq!(planned(elsewhere), expected);
    }

    #[test]
    fn an_interface_of_that_name_that_is_not_ours_is_left_alone() {
        let foreign = Link {
            mac: Some([2, 0, 0, 0, 0, 7]),
            up: true,
            master: None,
            ..device()
        };
        assert_eq!(planned(foreign), []);
    }

    #[test]
    fn it_is_no_port_that_a_container_could_be_behind() {
        let link = device();
        let observed = Observed {
            links: [(link.index, link)].into(),
            ..Observed::default()
        };
        assert_eq!(observed.ports_of(BRIDGE).count(), 0);
    }
}
