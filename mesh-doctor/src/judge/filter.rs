//! Whether packet filters of somebody else would drop what is the mesh's. Pure.
//!
//! Rules are followed for packets as the mesh sends them. What of a rule is not known beforehand, or not read here, counts as
//! unknown, and only what is certainly dropped is told: the runtime tells, by counting, what is really dropped.

mod packet;
mod rules;

use mesh_problems::{Problem, catalog::host::FILTER_WOULD_DROP};

use super::some;
use crate::snapshot::{Mesh, Network, Ways};
use packet::Packet;
pub(crate) use rules::Rules;

/// How many peers' packets are followed: rules are seldom about one of them alone.
const PEERS: usize = 16;

/// A way over this host.
struct Way {
    /// In words.
    what: String,
    hooks: &'static [&'static str],
    packet: Packet,
}

/// The ways of the mesh that these rules certainly drop.
pub(crate) fn judge(rules: &Rules, mesh: &Mesh, network: &Network, ways: &Ways) -> Vec<Problem> {
    let mut dropped: Vec<(String, Vec<String>)> = Vec::new();
    for way in packets(mesh, network, ways) {
        if let Some(chain) = rules.drops(way.hooks, &way.packet) {
            match dropped.iter_mut().find(|(it, _)| *it == chain) {
                Some((_, whats)) if whats.contains(&way.what) => {}
                Some((_, whats)) => whats.push(way.what),
                None => dropped.push((chain, vec![way.what])),
            }
        }
    }
    let bridge = mesh
        .bridge
        .map_or_else(String::new, |it| network.name_of(it));
    let tell = |(chain, whats): (String, Vec<String>)| {
        let remedy = match chain.contains("FORWARD") {
            true => format!(
                "unless that is meant, let it through (iptables -I FORWARD -i {bridge} -j ACCEPT; iptables -I FORWARD -o {bridge} -j \
                 ACCEPT; beside Docker the same in DOCKER-USER)"
            ),
            false => format!(
                "unless that is meant, have {chain} let it through (nft list ruleset shows it)"
            ),
        };
        Problem::new(
            &FILTER_WOULD_DROP,
            format!("{chain} would drop {}", some(&whats)),
        )
        .remedied_by(remedy)
    };
    dropped.into_iter().map(tell).collect()
}

fn packets(mesh: &Mesh, network: &Network, ways: &Ways) -> Vec<Way> {
    let mut packets = Vec::new();
    let name = |index: Option<u32>| index.map(|index| network.name_of(index));
    let underlay = name(mesh.underlay(network).map(|held| held.link));
    if let (Some(own), Some(underlay)) = (mesh.host_address, underlay) {
        for peer in mesh.peers.iter().take(PEERS) {
            packets.push(Way {
                what: "VXLAN from peers".to_owned(),
                hooks: &["prerouting", "input"],
                packet: Packet::udp(peer.address, own, mesh.port).over(Some(&underlay), None),
            });
            packets.push(Way {
                what: "VXLAN to peers".to_owned(),
                hooks: &["output"],
                packet: Packet::udp(own, peer.address, mesh.port).over(None, Some(&underlay)),
            });
        }
    }
    let (Some(subnet), Some(bridge)) = (mesh.subnet, name(mesh.bridge)) else {
        return packets;
    };
    let container =
        |subnet: ipnet::Ipv4Net| std::net::Ipv4Addr::from_bits(subnet.network().to_bits() | 2);
    let own = container(subnet);
    if let Some(overlay) = name(mesh.overlay) {
        for peer in mesh.peers.iter().take(PEERS) {
            let far = container(peer.subnet);
            packets.push(Way {
                what: "what containers send to other nodes by the kernel path".to_owned(),
                hooks: &["prerouting", "forward"],
                packet: Packet::tcp(own, Some(far)).over(Some(&bridge), Some(&overlay)),
            });
            packets.push(Way {
                what: "what other nodes send to containers by the kernel path".to_owned(),
                hooks: &["prerouting", "forward"],
                packet: Packet::tcp(far, Some(own)).over(Some(&overlay), Some(&bridge)),
            });
        }
    }
    if let Some(outside) = name(ways.outside.and_then(|way| way.link)) {
        packets.push(Way {
            what: "what containers send to the outside".to_owned(),
            hooks: &["prerouting", "forward"],
            packet: Packet::tcp(own, None).over(Some(&bridge), Some(&outside)),
        });
    }
    packets
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        judge::tests::{ETH0, mesh, network},
        snapshot::Way as Leads,
    };

    fn told(objects: &serde_json::Value) -> Vec<String> {
        let rules = Rules::read(objects).unwrap();
        let ways = Ways {
            outside: Some(Leads {
                link: Some(ETH0),
                table: 254,
            }),
            ..Ways::default()
        };
        let problems = judge(&rules, &mesh(), &network(), &ways);
        problems.into_iter().map(|it| it.observed).collect()
    }

    fn chain(name: &str, hook: &str, policy: &str) -> serde_json::Value {
        json!({"chain": {"family": "ip", "table": "filter", "name": name, "type": "filter", "hook": hook, "prio": 0, "policy": policy}})
    }

    fn rule(chain: &str, expr: &serde_json::Value) -> serde_json::Value {
        json!({"rule": {"family": "ip", "table": "filter", "chain": chain, "expr": expr}})
    }

    #[test]
    fn dockers_policy_drop_is_told_until_our_bridge_is_let_through() {
        // As Docker leaves it where it had to enable forwarding by itself.
        let mut objects = vec![
            chain("FORWARD", "forward", "drop"),
            json!({"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}}),
            rule(
                "FORWARD",
                &json!([{"counter": {}}, {"jump": {"target": "DOCKER-USER"}}]),
            ),
            rule(
                "FORWARD",
                &json!([
                {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "docker0"}},
                {"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}]),
            ),
            rule(
                "FORWARD",
                &json!([
                {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "docker0"}},
                {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "docker0"}}, {"accept": null}]),
            ),
        ];
        let of = |objects: &[serde_json::Value]| told(&json!({"nftables": objects}));
        assert_eq!(
            of(&objects),
            [
                "chain FORWARD of table ip filter would drop what containers send to other nodes by the kernel \
            path, what other nodes send to containers by the kernel path, what containers send to the outside"
            ]
        );
        for key in ["iifname", "oifname"] {
            objects.push(rule("DOCKER-USER", &json!([
                {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": "quilt0"}}, {"accept": null}])));
        }
        assert_eq!(of(&objects), [""; 0]);
    }

    #[test]
    fn rules_that_are_about_others_or_not_understood_are_told_of_nobody() {
        let objects = json!({"nftables": [
            chain("PREROUTING", "prerouting", "accept"),
            // Docker's raw rules for its own containers.
            rule("PREROUTING", &json!([
                {"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "docker0"}},
                {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "172.17.0.2"}}, {"drop": null}])),
            chain("INPUT", "input", "drop"),
            rule("INPUT", &json!([{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}}, {"accept": null}])),
        ]});
        assert_eq!(told(&objects), [""; 0]);
    }

    #[test]
    fn a_filter_without_the_port_of_vxlan_is_told() {
        let objects = json!({"nftables": [
            chain("in", "input", "drop"),
            rule("in", &json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}])),
            rule("in", &json!([{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}, {"accept": null}])),
        ]});
        assert_eq!(
            told(&objects),
            ["chain in of table ip filter would drop VXLAN from peers"]
        );
    }
}
