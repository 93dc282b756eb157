//! Whether the kernel sends what is for peers where it should, with everything that decides it. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_problems::{
    Problem,
    catalog::{
        dataplane::{FOREIGN_ROUTE, NO_ROUTE_TO_PEERS, POLICY_RULE},
        host::{OWN_SUBNET_DIVERTED, UNDERLAY_DIVERTED, UNDERLAY_OVER_OVERLAY},
    },
};

use super::some;
use crate::{
    kernel::ways::grouped,
    snapshot::{Mesh, Network, Way, Ways},
};

/// Tables that every host has: local and main (`RT_TABLE_*`), and 0 where the kernel did not say.
const USUAL_TABLES: [u32; 3] = [0, 254, 255];

/// What containers send to peers, and what the VXLAN device sends to their hosts.
pub(crate) fn judge(mesh: &Mesh, network: &Network, ways: &Ways) -> Vec<Problem> {
    let mut problems = to_containers(mesh, network, ways);
    problems.extend(to_own(mesh, network, ways));
    problems.extend(to_hosts(mesh, network, ways));
    problems
}

fn over(network: &Network, link: Option<u32>) -> String {
    link.map_or_else(
        || "nowhere".to_owned(),
        |link| format!("over {}", network.name_of(link)),
    )
}

fn to_containers(mesh: &Mesh, network: &Network, ways: &Ways) -> Vec<Problem> {
    let Some(overlay) = mesh.overlay else {
        return Vec::new();
    };
    // Without a route of ours nothing leads there yet, which is the runtime's to tell; with one, something is before it.
    let ours = |subnet: Ipv4Net| {
        let mut routes = network.overlay_routes.iter();
        routes.any(|route| route.destination == subnet)
    };
    let wrong = |subnet: Ipv4Net, way: &Way| way.link != Some(overlay) && ours(subnet);
    let groups = grouped(&ways.to_containers, wrong);
    let tell = |(link, subnets): (Option<u32>, Vec<Ipv4Net>)| {
        let by_rule = subnets.iter().any(|subnet| {
            let way = ways.to_containers.get(subnet);
            way.is_some_and(|way| !USUAL_TABLES.contains(&way.table))
        });
        let leads = format!(
            "what is for {} goes {}",
            some(&subnets),
            over(network, link)
        );
        match (by_rule, link.is_none() && network.rules > 0) {
            (true, _) => {
                let table = subnets
                    .first()
                    .and_then(|subnet| ways.to_containers.get(subnet))
                    .map_or(0, |way| way.table);
                Problem::new(
                    &POLICY_RULE,
                    format!(
                        "{leads}, by a route of table {table}, to which a policy rule leads (ip rule)"
                    ),
                )
            }
            (false, true) => Problem::new(
                &POLICY_RULE,
                format!("{leads}: no route, or a policy rule that drops (ip rule)"),
            ),
            (false, false) => Problem::new(&FOREIGN_ROUTE, leads),
        }
    };
    groups.into_iter().map(tell).collect()
}

/// What is for containers of this node, as long as the bridge has its address, and with it the route that leads there.
fn to_own(mesh: &Mesh, network: &Network, ways: &Ways) -> Vec<Problem> {
    let (Some(bridge), Some(subnet)) = (mesh.bridge, mesh.subnet) else {
        return Vec::new();
    };
    let mut held = network.addresses.iter();
    if !held.any(|held| held.link == bridge && held.address.trunc() == subnet) {
        return Vec::new();
    }
    let groups = grouped(&ways.to_own, |_, way| way.link != Some(bridge));
    let tell = |(link, addresses): (Option<u32>, Vec<Ipv4Addr>)| {
        let observed = format!(
            "what is for {} goes {}, and not over {}",
            some(&addresses),
            over(network, link),
            network.name_of(bridge)
        );
        let problem = Problem::new(&OWN_SUBNET_DIVERTED, observed);
        match addresses.first() {
            Some(first) => problem.remedied_by(format!(
                "delete the route or the policy rule that leads there (ip route get {first} shows it)"
            )),
            None => problem,
        }
    };
    groups.into_iter().map(tell).collect()
}

fn to_hosts(mesh: &Mesh, network: &Network, ways: &Ways) -> Vec<Problem> {
    let mut problems = Vec::new();
    let holder = mesh.underlay(network).map(|held| held.link);
    // An address of the host itself, as routers have it, is on no interface that packets leave by.
    let virtual_holder = holder.is_some_and(|holder| {
        let link = network.links.get(&holder);
        link.is_some_and(|link| link.loopback || link.kind == "dummy")
    });
    let groups = grouped(&ways.to_hosts, |_: Ipv4Addr, way| way.link != holder);
    for (link, addresses) in groups {
        let Some(index) = link else {
            problems.push(Problem::new(
                &NO_ROUTE_TO_PEERS,
                format!("this host has no route to {}", some(&addresses)),
            ));
            continue;
        };
        let leads = format!(
            "VXLAN to {} leaves {}",
            some(&addresses),
            over(network, link)
        );
        if mesh.has(index) {
            problems.push(Problem::new(&UNDERLAY_OVER_OVERLAY, leads));
            continue;
        }
        let by_rule: Vec<Ipv4Addr> = addresses
            .into_iter()
            .filter(|address| {
                let way = ways.to_hosts.get(address);
                way.is_some_and(|way| !USUAL_TABLES.contains(&way.table))
            })
            .collect();
        // A route of table main to another interface is somebody's decision about single hosts, and may be right.
        if let (Some(first), Some(holder), false) = (by_rule.first(), holder, virtual_holder) {
            let table = ways.to_hosts.get(first).map_or(0, |way| way.table);
            let observed = format!(
                "VXLAN to {} leaves {}, by a route of table {table}, to which a policy rule leads, and not over {}, which has the \
                 node's address",
                some(&by_rule),
                over(network, link),
                network.name_of(holder)
            );
            let remedy = format!(
                "have that rule leave out the peers' hosts (such as ip rule add priority 1 to {first} lookup main), or start \
                 runtime and agent with --host-ip of the interface that shall carry them"
            );
            problems.push(Problem::new(&UNDERLAY_DIVERTED, observed).remedied_by(remedy));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests::{BRIDGE, ETH0, ETH1, OVERLAY, mesh, network},
        snapshot::OverlayRoute,
    };

    fn fine() -> Ways {
        let mut ways = Ways::default();
        for peer in mesh().peers {
            let to = |link| Way {
                link: Some(link),
                table: 254,
            };
            ways.to_containers.insert(peer.subnet, to(OVERLAY));
            ways.to_hosts.insert(peer.address, to(ETH0));
        }
        ways
    }

    /// With our routes to the peers.
    fn routed() -> Network {
        let route = |peer: crate::snapshot::Peer| OverlayRoute {
            destination: peer.subnet,
            gateway: Some(peer.subnet.network()),
            protocol: 0x51,
        };
        Network {
            overlay_routes: mesh().peers.into_iter().map(route).collect(),
            ..network()
        }
    }

    fn codes(ways: &Ways) -> Vec<&'static str> {
        let problems = judge(&mesh(), &routed(), ways);
        problems.iter().map(|it| it.kind.code).collect()
    }

    #[test]
    fn a_host_that_sends_where_it_should_has_nothing_in_the_way() {
        assert_eq!(codes(&fine()), [""; 0]);
    }

    #[test]
    fn a_way_that_leads_elsewhere_is_named_after_what_decides_it() {
        let subnet = mesh().peers[0].subnet;
        let with = |link, table| {
            let mut ways = fine();
            ways.to_containers.insert(subnet, Way { link, table });
            codes(&ways)
        };
        assert_eq!(with(Some(ETH1), 254), ["foreign-route"]);
        assert_eq!(with(Some(ETH1), 51820), ["policy-rule"]);
        assert_eq!(with(None, 0), ["foreign-route"]);
        let mut ways = fine();
        let by_default = Way {
            link: Some(ETH0),
            table: 254,
        };
        ways.to_containers.insert(subnet, by_default);
        let mut network = routed();
        network.overlay_routes.clear();
        assert_eq!(judge(&mesh(), &network, &ways), [], "not set up yet");
        let nowhere = Way {
            link: None,
            table: 0,
        };
        ways.to_containers.insert(subnet, nowhere);
        let mut network = routed();
        network.rules = 1;
        let problems = judge(&mesh(), &network, &ways);
        assert_eq!(problems[0].kind.code, "policy-rule");
    }

    #[test]
    fn what_is_for_own_containers_leads_over_the_bridge_or_is_told() {
        let with = |link| {
            let mut ways = fine();
            let address = "10.42.1.7".parse().unwrap();
            ways.to_own.insert(address, Way { link, table: 254 });
            codes(&ways)
        };
        assert_eq!(with(Some(BRIDGE)), [""; 0]);
        assert_eq!(with(Some(ETH1)), ["own-subnet-diverted"]);
        assert_eq!(with(None), ["own-subnet-diverted"]);
    }

    #[test]
    fn vxlan_that_leaves_by_a_rule_or_over_itself_is_told_and_a_route_of_main_is_not() {
        let address = mesh().peers[1].address;
        let with = |link, table| {
            let mut ways = fine();
            ways.to_hosts.insert(address, Way { link, table });
            codes(&ways)
        };
        assert_eq!(with(Some(ETH1), 51820), ["underlay-diverted"]);
        assert_eq!(with(Some(OVERLAY), 254), ["underlay-over-overlay"]);
        assert_eq!(with(None, 0), ["no-route-to-peers"]);
        assert_eq!(with(Some(ETH1), 254), [""; 0]);
        // As clouds do for a second card: another table, and the same interface.
        assert_eq!(with(Some(ETH0), 1001), [""; 0]);
    }
}
