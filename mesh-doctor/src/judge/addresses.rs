//! Whether the addresses of the host and of our devices are where they belong, and nobody else has hold of the devices. Pure.

use std::collections::BTreeMap;

use mesh_problems::{
    Problem,
    catalog::host::{
        ADDRESS_ELSEWHERE, DEVICE_MANAGED, HOST_ADDRESS_ON_OVERLAY, MAC_CHANGED, MAC_OF_PEER,
    },
};

use super::some;
use crate::snapshot::{Mac, Mesh, Network};

/// The host's own address on a device of the overlay.
pub(crate) fn judge(mesh: &Mesh, network: &Network) -> Vec<Problem> {
    let Some(own) = mesh.host_address else {
        return Vec::new();
    };
    let held = network.holders(own).filter(|held| mesh.has(held.link));
    held.map(|held| {
        let interface = network.name_of(held.link);
        Problem::new(
            &HOST_ADDRESS_ON_OVERLAY,
            format!(
                "{interface} has the address {}, which is this node's on the underlay",
                held.address
            ),
        )
        .remedied_by(format!(
            "take it away (ip address delete {} dev {interface})",
            held.address
        ))
    })
    .collect()
}

/// Who manages our devices: `managers` has them by the device's index.
pub(crate) fn managed(
    mesh: &Mesh,
    network: &Network,
    managers: &BTreeMap<u32, String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for index in mesh.bridge.into_iter().chain(mesh.overlay) {
        let name = network.name_of(index);
        if let Some(manager) = managers.get(&index) {
            problems.push(Problem::new(
                &DEVICE_MANAGED,
                format!("{manager} manages {name}"),
            ));
            continue;
        }
        // What a DHCP client gives itself where nobody answers (RFC 3927).
        let mut held = network.addresses.iter().filter(|it| it.link == index);
        if let Some(held) = held.find(|it| it.address.addr().is_link_local()) {
            problems.push(Problem::new(
                &DEVICE_MANAGED,
                format!(
                    "{name} has the address {}, which a DHCP client gives itself",
                    held.address
                ),
            ));
        }
    }
    problems
}

/// Whether the overlay device has the MAC address that peers send to, which is computed from the subnet.
pub(crate) fn hardware(mesh: &Mesh, network: &Network) -> Option<Problem> {
    let right = mesh_layout::overlay_mac(mesh.subnet?.network().octets());
    let link = network.links.get(&mesh.overlay?)?;
    let mac = link.mac.filter(|mac| *mac != right)?;
    Some(Problem::new(
        &MAC_CHANGED,
        format!(
            "{} has the MAC address {}, and peers send to {}",
            link.name,
            mac_text(mac),
            mac_text(right)
        ),
    ))
}

/// Machines with the identity of this one: peers' hosts with its MAC address, and the MAC address of whoever answered for
/// its address.
pub(crate) fn twins(mesh: &Mesh, network: &Network, answered: Option<Mac>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(held) = mesh.underlay(network) else {
        return problems;
    };
    let own = network.links.get(&held.link).and_then(|link| link.mac);
    let of_peers = network.neighbours.iter().filter(|it| it.link == held.link);
    let same: Vec<String> = of_peers
        .filter(|it| Some(it.mac) == own)
        .filter_map(|it| mesh.peers.iter().find(|peer| peer.address == it.address))
        .map(|peer| format!("{} ({})", peer.name, peer.address))
        .collect();
    if let Some(own) = own.filter(|_| !same.is_empty()) {
        problems.push(Problem::new(
            &MAC_OF_PEER,
            format!(
                "{} has the MAC address {}, as this host's {} has",
                some(&same),
                mac_text(own),
                network.name_of(held.link)
            ),
        ));
    }
    if let Some(other) = answered {
        problems.push(Problem::new(
            &ADDRESS_ELSEWHERE,
            format!(
                "{} answers for {} on {}",
                mac_text(other),
                held.address.addr(),
                network.name_of(held.link)
            ),
        ));
    }
    problems
}

/// As ip(8) writes it.
fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests::{BRIDGE, ETH0, OVERLAY, mesh, network},
        snapshot::{Address, Neighbour},
    };

    fn codes(problems: &[Problem]) -> Vec<&'static str> {
        problems.iter().map(|it| it.kind.code).collect()
    }

    #[test]
    fn the_hosts_address_on_the_overlay_device_is_told_and_others_there_are_not() {
        let mut network = network();
        assert_eq!(judge(&mesh(), &network), []);
        let on = |link, text: &str| Address {
            link,
            address: text.parse().unwrap(),
        };
        network.addresses.push(on(BRIDGE, "198.51.100.7/24"));
        assert_eq!(judge(&mesh(), &network), []);
        network.addresses.push(on(OVERLAY, "192.0.2.2/32"));
        let problems = judge(&mesh(), &network);
        assert_eq!(codes(&problems), ["host-address-on-overlay"]);
        assert!(problems[0].remedy().contains("192.0.2.2/32 dev vxlan100"));
    }

    #[test]
    fn who_manages_our_devices_is_told_of_them_alone() {
        let mut network = network();
        let managers: BTreeMap<u32, String> = [(ETH0, "systemd-networkd".to_owned())].into();
        assert_eq!(managed(&mesh(), &network, &managers), []);
        let managers: BTreeMap<u32, String> = [(OVERLAY, "systemd-networkd".to_owned())].into();
        let problems = managed(&mesh(), &network, &managers);
        assert_eq!(codes(&problems), ["device-managed"]);
        network.addresses.push(Address {
            link: BRIDGE,
            address: "169.254.7.9/16".parse().unwrap(),
        });
        let problems = managed(&mesh(), &network, &BTreeMap::new());
        assert!(
            problems[0]
                .observed
                .starts_with("quilt0 has the address 169.254.7.9/16")
        );
    }

    #[test]
    fn another_mac_address_of_the_overlay_device_is_told() {
        let mut network = network();
        assert_eq!(hardware(&mesh(), &network), None);
        if let Some(link) = network.links.get_mut(&OVERLAY) {
            link.mac = Some([0x3e, 1, 2, 3, 4, 5]);
        }
        let problem = hardware(&mesh(), &network).unwrap();
        assert_eq!(problem.kind.code, "mac-changed");
    }

    #[test]
    fn machines_with_our_address_or_our_mac_address_are_told() {
        let mut network = network();
        let own = network.links[&ETH0].mac.unwrap();
        assert_eq!(twins(&mesh(), &network, None), []);
        let other = twins(&mesh(), &network, Some([2, 0, 0, 0, 0, 9]));
        assert_eq!(codes(&other), ["address-elsewhere"]);
        network.neighbours.push(Neighbour {
            link: ETH0,
            address: mesh().peers[0].address,
            mac: own,
        });
        assert_eq!(codes(&twins(&mesh(), &network, None)), ["mac-of-peer"]);
    }
}
