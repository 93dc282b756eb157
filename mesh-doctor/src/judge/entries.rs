//! Whether the overlay device leads to nodes that are none. Pure.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use mesh_layout::overlay_mac;
use mesh_problems::{Problem, catalog::host::STALE_ENTRIES};

use super::some;
use crate::snapshot::{Mesh, Network};

/// Protocol numbers of routes that the kernel makes itself (`RTPROT_KERNEL`), and of ours.
const KERNEL: u8 = 2;
const OURS: u8 = 0x51;

/// What the device leads by that belongs to nobody: with a runtime, which keeps what is its own in order, routes of others
/// to what no peer has; without one, whatever does not fit together.
pub(crate) fn judge(mesh: &Mesh, network: &Network, runtime: bool) -> Vec<Problem> {
    let (Some(device), Some(_)) = (mesh.overlay, mesh.subnet) else {
        return Vec::new();
    };
    let name = network.name_of(device);
    let mut stale: Vec<String> = Vec::new();
    let mut remedies: Vec<String> = Vec::new();
    let subnets: BTreeSet<Ipv4Net> = mesh.peers.iter().map(|peer| peer.subnet).collect();
    let within = |net: &Ipv4Net| subnets.iter().any(|subnet| subnet.contains(net));
    let of_hosts = |net: &Ipv4Net| mesh.peers.iter().any(|peer| net.contains(&peer.address));
    for route in &network.overlay_routes {
        let destination = route.destination;
        // A route of ours is to a peer, or asked for by somebody (InjectRoute); which leads round in circles is another area's.
        let ours = [KERNEL, OURS].contains(&route.protocol);
        if !ours && !within(&destination) && !of_hosts(&destination) {
            stale.push(format!("the route to {destination}"));
            remedies.push(format!("ip route delete {destination} dev {name}"));
        }
    }
    if !runtime {
        let gateways: BTreeSet<_> = network
            .overlay_routes
            .iter()
            .filter_map(|it| it.gateway)
            .collect();
        let neighbours = network.neighbours.iter().filter(|it| it.link == device);
        for neighbour in neighbours.filter(|it| !gateways.contains(&it.address)) {
            stale.push(format!("the neighbour {}", neighbour.address));
            remedies.push(format!(
                "ip neighbour delete {} dev {name}",
                neighbour.address
            ));
        }
        let routed: BTreeSet<_> = network
            .overlay_routes
            .iter()
            .map(|route| overlay_mac(route.destination.network().octets()))
            .collect();
        for entry in network
            .forwarding
            .iter()
            .filter(|it| !routed.contains(&it.mac))
        {
            let mac = entry.mac.map(|byte| format!("{byte:02x}")).join(":");
            stale.push(format!("the forwarding entry of {mac} to {}", entry.remote));
            remedies.push(format!(
                "bridge fdb delete {mac} dev {name} dst {}",
                entry.remote
            ));
        }
    }
    if stale.is_empty() {
        return Vec::new();
    }
    let (verb, what) = match stale.len() {
        1 => ("leads", "belongs"),
        _ => ("lead", "belong"),
    };
    let observed = format!("{} {verb} over {name} and {what} to no peer", some(&stale));
    vec![
        Problem::new(&STALE_ENTRIES, observed)
            .remedied_by(format!("delete them ({})", some(&remedies))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests::{OVERLAY, mesh, network},
        snapshot::{Forwarding, Neighbour, OverlayRoute},
    };

    fn route(destination: &str, protocol: u8) -> OverlayRoute {
        OverlayRoute {
            destination: destination.parse().unwrap(),
            gateway: None,
            protocol,
        }
    }

    #[test]
    fn a_route_of_somebody_else_to_no_peer_is_stale_and_ours_are_not() {
        let mut network = network();
        network.overlay_routes = vec![
            route("10.42.2.0/24", OURS),
            route("10.42.2.128/25", 4),
            route("10.42.250.0/24", OURS),
        ];
        assert_eq!(judge(&mesh(), &network, true), []);
        network.overlay_routes.push(route("10.42.99.0/24", 4));
        let problems = judge(&mesh(), &network, true);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0]
                .remedy()
                .contains("ip route delete 10.42.99.0/24 dev vxlan100")
        );
    }

    #[test]
    fn without_a_runtime_entries_that_no_route_uses_are_stale() {
        let mut network = network();
        network.overlay_routes = vec![OverlayRoute {
            gateway: Some("10.42.2.0".parse().unwrap()),
            ..route("10.42.2.0/24", OURS)
        }];
        let neighbour = |address: &str| Neighbour {
            link: OVERLAY,
            address: address.parse().unwrap(),
            mac: overlay_mac([10, 42, 2, 0]),
        };
        let forwarding = |mac| Forwarding {
            mac,
            remote: "192.0.2.3".parse().unwrap(),
        };
        network.neighbours = vec![neighbour("10.42.2.0")];
        network.forwarding = vec![forwarding(overlay_mac([10, 42, 2, 0]))];
        assert_eq!(judge(&mesh(), &network, false), []);
        network.neighbours.push(neighbour("10.42.9.0"));
        network.forwarding.push(forwarding([2, 0x51, 10, 42, 9, 0]));
        let problems = judge(&mesh(), &network, false);
        assert_eq!(
            problems[0].observed,
            "the neighbour 10.42.9.0, the forwarding entry of 02:51:0a:2a:09:00 to 192.0.2.3 lead over vxlan100 and belong to no peer"
        );
        // A runtime takes them away itself.
        assert_eq!(judge(&mesh(), &network, true), []);
    }
}
