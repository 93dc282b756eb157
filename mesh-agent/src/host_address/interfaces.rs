//! The addresses of this host's interfaces, and which of them is the node's where the control plane's address is one
//! of them.
//!
//! The kernel's source towards an address of the host is that address itself. Where it is the host's own that is
//! right; where it is a virtual one that moves between hosts (VRRP), the node would take it for its own, and lose its
//! address to another node with it. So the node's address is then the one that the kernel would use if the virtual
//! address was elsewhere.

use std::{cmp::Reverse, io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// One address of an interface that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfaceAddress {
    /// The interface's name.
    pub(super) interface: String,
    /// Whether the interface is the loopback device.
    pub(super) loopback: bool,
    /// The address, with the prefix length of its network.
    pub(super) network: Ipv4Net,
}

impl InterfaceAddress {
    fn address(&self) -> Ipv4Addr {
        self.network.addr()
    }

    /// Whether it stands for a network that the interface is connected to.
    fn is_of_a_network(&self) -> bool {
        !self.loopback && self.network.prefix_len() < 32
    }
}

/// The IPv4 addresses of the interfaces that are up; those of one interface in the kernel's order, in which the
/// primary address of a network comes before what was added to it later.
///
/// # Errors
/// If the kernel does not list them.
pub(super) fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let listed = getifaddrs()?.filter(|listed| listed.flags.contains(InterfaceFlags::IFF_UP));
    let addresses = listed.filter_map(|listed| {
        let address = listed.address?.as_sockaddr_in()?.ip();
        let mask = listed
            .netmask
            .as_ref()
            .and_then(|mask| mask.as_sockaddr_in());
        let mask = mask.map_or(Ipv4Addr::BROADCAST, |mask| mask.ip());
        // A label ("eth0:vip") stands in the place of the name; a name holds no colon.
        let name = listed.interface_name.split(':').next().unwrap_or_default();
        Some(InterfaceAddress {
            interface: name.to_owned(),
            loopback: listed.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            network: Ipv4Net::with_netmask(address, mask).ok()?,
        })
    });
    Ok(addresses.collect())
}

/// The node's address where the control plane is at `control`, an address of this host. `before`: what it was so far.
/// `outside`: the source that the kernel uses by the default route, if there is one. `None` if it cannot be told.
///
/// What comes first decides:
///
/// 1. A loopback address: a cluster on one machine.
/// 2. What the node's address was so far, while the host has it: a virtual address that comes changes nothing.
/// 3. `control` itself, if it is the first address of its interface and has a network: the host's ordinary address.
/// 4. The first other address in the smallest network that `control` lies in: the kernel's choice towards it while it
///    is at another host.
/// 5. The source by the default route, which is the kernel's choice if `control` lies in no network of this host.
/// 6. The first other address of the interface that `control` is on.
/// 7. `control` itself, if the host has no other.
#[must_use]
pub(super) fn address_beside(
    control: Ipv4Addr,
    addresses: &[InterfaceAddress],
    before: Option<Ipv4Addr>,
    outside: Option<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    if control.is_loopback() {
        return Some(control);
    }
    let others = || {
        let other = |other: &&InterfaceAddress| {
            other.address() != control && !other.address().is_loopback()
        };
        addresses.iter().filter(other)
    };
    if let Some(before) = before.filter(|before| others().any(|other| other.address() == *before)) {
        return Some(before);
    }
    let holder = addresses.iter().find(|held| held.address() == control);
    let beside = |other: &InterfaceAddress| {
        holder.is_some_and(|holder| !holder.loopback && holder.interface == other.interface)
    };
    let first = addresses.iter().find(|other| beside(other));
    if let Some(first) = first.filter(|first| first.address() == control)
        && first.is_of_a_network()
    {
        return Some(control);
    }
    let connected = others()
        .filter(|other| other.is_of_a_network() && other.network.contains(&control))
        // Of equals the first.
        .min_by_key(|other| (Reverse(other.network.prefix_len()), !beside(other)));
    let outside = outside.filter(|outside| !outside.is_loopback());
    let on_its_interface = || others().find(|other| beside(other));
    connected
        .map(InterfaceAddress::address)
        .or(outside)
        .or_else(|| on_its_interface().map(InterfaceAddress::address))
        .or_else(|| others().next().is_none().then_some(control))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    fn host(addresses: &[(&str, &str)]) -> Vec<InterfaceAddress> {
        let address = |(interface, network): &(&str, &str)| InterfaceAddress {
            interface: (*interface).to_owned(),
            loopback: *interface == "lo",
            network: network.parse().unwrap(),
        };
        addresses.iter().map(address).collect()
    }

    #[test]
    fn a_virtual_address_is_never_the_node_s_wherever_it_sits() {
        let lo = ("lo", "127.0.0.1/8");
        let own = ("eth0", "192.0.2.11/24");
        for (virtual_address, addresses) in [
            (
                "a /32 on the NIC",
                vec![lo, own, ("eth0", "192.0.2.100/32")],
            ),
            (
                "with the network's prefix",
                vec![lo, own, ("eth0", "192.0.2.100/24")],
            ),
            (
                "a /32 on the loopback device",
                vec![lo, ("lo", "192.0.2.100/32"), own],
            ),
            (
                "with the network's prefix on it",
                vec![lo, ("lo", "192.0.2.100/24"), own],
            ),
            (
                "a /32 on a device of its own",
                vec![lo, ("vrrp.51", "192.0.2.100/32"), own],
            ),
            (
                "beside networks that it does not lie in",
                vec![
                    ("docker0", "172.17.0.1/16"),
                    ("eth0", "10.0.0.5/24"),
                    own,
                    ("eth0", "192.0.2.100/32"),
                ],
            ),
        ] {
            let addresses = host(&addresses);
            for outside in [None, Some(OTHER)] {
                assert_eq!(
                    address_beside(VIRTUAL, &addresses, None, outside),
                    Some(OWN),
                    "{virtual_address}"
                );
            }
        }
    }

    #[test]
    fn a_virtual_address_of_no_connected_network_leaves_the_source_by_the_default_route() {
        let apart = Ipv4Addr::new(198, 51, 100, 5);
        for prefix in [24, 32] {
            let virtual_address = format!("{apart}/{prefix}");
            let addresses = host(&[("eth0", "192.0.2.11/24"), ("eth0", &virtual_address)]);
            assert_eq!(
                address_beside(apart, &addresses, None, Some(OWN)),
                Some(OWN)
            );
            assert_eq!(address_beside(apart, &addresses, None, None), Some(OWN));
        }
    }

    #[test]
    fn the_host_s_ordinary_address_is_the_node_s_also_beside_others() {
        for addresses in [
            vec![("eth0", "192.0.2.11/24")],
            vec![
                ("docker0", "172.17.0.1/16"),
                ("eth0", "192.0.2.11/24"),
                ("eth1", "10.0.0.5/24"),
            ],
            vec![("eth0", "192.0.2.11/24"), ("eth0", "192.0.2.100/32")],
            // The only one that a cloud gives.
            vec![("lo", "127.0.0.1/8"), ("eth0", "192.0.2.11/32")],
        ] {
            let addresses = host(&addresses);
            assert_eq!(
                address_beside(OWN, &addresses, None, None),
                Some(OWN),
                "{addresses:?}"
            );
        }
        // The same beside others, where the kernel says what it goes out by.
        let addresses = host(&[("docker0", "172.17.0.1/16"), ("eth0", "192.0.2.11/32")]);
        assert_eq!(address_beside(OWN, &addresses, None, Some(OWN)), Some(OWN));
    }

    #[test]
    fn a_cluster_on_one_machine_stays_at_the_loopback_address() {
        let addresses = host(&[("lo", "127.0.0.1/8"), ("eth0", "192.0.2.11/24")]);
        let loopback = Ipv4Addr::LOCALHOST;
        assert_eq!(
            address_beside(loopback, &addresses, Some(OWN), Some(OWN)),
            Some(loopback)
        );
    }

    #[test]
    fn what_the_address_was_stays_while_the_host_has_it() {
        let addresses = host(&[
            ("eth1", "10.0.0.5/24"),
            ("eth0", "192.0.2.11/24"),
            ("eth0", "192.0.2.100/24"),
        ]);
        assert_eq!(
            address_beside(VIRTUAL, &addresses, Some(OTHER), None),
            Some(OTHER)
        );
        let gone = Some(Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(address_beside(VIRTUAL, &addresses, gone, None), Some(OWN));
        assert_eq!(
            address_beside(VIRTUAL, &addresses, Some(VIRTUAL), None),
            Some(OWN)
        );
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        let addresses = host(&[("lo", "192.0.2.100/32"), ("docker0", "172.17.0.1/16")]);
        assert_eq!(address_beside(VIRTUAL, &addresses, None, None), None);
        // A local route without an address.
        assert_eq!(
            address_beside(VIRTUAL, &host(&[("eth0", "10.0.0.5/24")]), None, None),
            None
        );
    }
}
