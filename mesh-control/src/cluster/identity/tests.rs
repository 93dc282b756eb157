use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

mod who_is_whom;

const X: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const Y: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn node(id: &str, key: Option<&str>, hostname: &str, host_ip: Ipv4Addr, up: bool) -> Claimant {
    Claimant {
        node_id: NodeId::from(id.to_owned()),
        node_key: key.map(str::to_owned),
        hostname: hostname.to_owned(),
        host_ip,
        up,
        holds_address: true,
        keeps_address: false,
    }
}

fn claim<'a>(node_key: Option<&'a str>, hostname: &'a str, host_ip: Ipv4Addr) -> Claim<'a> {
    Claim {
        node_id: None,
        node_key,
        hostname,
        host_ip,
        from: None,
    }
}

/// The verdict in one word: the id of the node it is, "new", or "409"; then whom it displaces.
fn say(verdict: &Verdict<'_>) -> String {
    match verdict {
        Verdict::Refuse { holder, clash } => format!("409 {clash:?} {}", holder.node_id),
        Verdict::Admit { node, displaces } => {
            let node = node.map_or("new".to_owned(), |node| node.node_id.to_string());
            displaces.map_or(node.clone(), |down| {
                format!("{node} displaces {}", down.node_id)
            })
        }
    }
}

#[test]
fn each_rule_decides_as_written() {
    let up = true;
    for (what, claim, known, expected) in [
        ("nobody there", claim(None, "a", X), vec![], "new"),
        (
            "same key, moved",
            claim(Some("k"), "a", Y),
            vec![node("1", Some("k"), "a", X, up)],
            "1",
        ),
        (
            "same key, renamed",
            claim(Some("k"), "b", X),
            vec![node("1", Some("k"), "a", X, up)],
            "1",
        ),
        (
            "copied key",
            claim(Some("k"), "b", Y),
            vec![node("1", Some("k"), "a", X, up)],
            "409 Key 1",
        ),
        (
            "moved and renamed while down",
            claim(Some("k"), "b", Y),
            vec![node("1", Some("k"), "a", X, !up)],
            "1",
        ),
        (
            "no key, again",
            claim(None, "a", X),
            vec![node("1", None, "a", X, up)],
            "1",
        ),
        (
            "no key, other host",
            claim(None, "b", X),
            vec![node("1", None, "a", X, up)],
            "409 Address 1",
        ),
        (
            "no key, other name, down",
            claim(None, "b", X),
            vec![node("1", None, "a", X, !up)],
            "1",
        ),
        (
            "agent begins to send a key",
            claim(Some("k"), "a", X),
            vec![node("1", None, "a", X, up)],
            "1",
        ),
        (
            "agent ceases to send a key",
            claim(None, "a", X),
            vec![node("1", Some("k"), "a", X, up)],
            "1",
        ),
        (
            "other key, live holder",
            claim(Some("l"), "b", X),
            vec![node("1", Some("k"), "a", X, up)],
            "409 Address 1",
        ),
        (
            "state lost, still up",
            claim(Some("l"), "a", X),
            vec![node("1", Some("k"), "a", X, up)],
            "409 Address 1",
        ),
        (
            "state lost, silent",
            claim(Some("l"), "a", X),
            vec![node("1", Some("k"), "a", X, !up)],
            "1",
        ),
        (
            "known key moves onto the name and address of another that is silent",
            claim(Some("k"), "b", X),
            vec![
                node("1", Some("k"), "a", Y, !up),
                node("2", Some("l"), "b", X, !up),
            ],
            "1 displaces 2",
        ),
        (
            "other key, dead holder",
            claim(Some("l"), "b", X),
            vec![node("1", Some("k"), "a", X, !up)],
            "new displaces 1",
        ),
        (
            "key, live keyless holder",
            claim(Some("k"), "b", X),
            vec![node("1", None, "a", X, up)],
            "409 Address 1",
        ),
        (
            "no key, live keyed holder",
            claim(None, "b", X),
            vec![node("1", Some("k"), "a", X, up)],
            "409 Address 1",
        ),
        (
            "known key moves onto a live node's address",
            claim(Some("k"), "a", Y),
            vec![
                node("1", Some("k"), "a", X, up),
                node("2", Some("l"), "b", Y, up),
            ],
            "409 Address 2",
        ),
        (
            "known key moves onto a dead node's address",
            claim(Some("k"), "a", Y),
            vec![
                node("1", Some("k"), "a", X, up),
                node("2", None, "b", Y, !up),
            ],
            "1 displaces 2",
        ),
    ] {
        assert_eq!(say(&decide(&claim, &known)), expected, "{what}");
    }
}

/// Rule 7, for a stranger with a certificate (`n`), and for the node itself.
#[test]
fn the_address_of_a_node_with_credentials_is_kept_until_somebody_comes_from_there() {
    let silent = |keeps_address| Claimant {
        keeps_address,
        ..node("1", None, "a", X, false)
    };
    let stopped = |keeps_address| Claimant {
        holds_address: false,
        ..silent(keeps_address)
    };
    let by = |node_id, from| Claim {
        node_id: Some(node_id),
        from,
        ..claim(None, "b", X)
    };
    let up = Claimant {
        keeps_address: true,
        ..node("1", None, "a", X, true)
    };
    let moved_in = Claimant {
        keeps_address: true,
        ..node("2", None, "b", X, false)
    };
    for (what, claim, known, expected) in [
        (
            "from elsewhere",
            by("n", Some(Y)),
            vec![silent(true)],
            "409 AddressUnproven 1",
        ),
        (
            "from nowhere",
            by("n", None),
            vec![silent(true)],
            "409 AddressUnproven 1",
        ),
        (
            "from there",
            by("n", Some(X)),
            vec![silent(true)],
            "new displaces 1",
        ),
        (
            "of one that is up, from there",
            by("n", Some(X)),
            vec![up],
            "409 Address 1",
        ),
        (
            "of one that stopped",
            by("n", Some(Y)),
            vec![stopped(true)],
            "409 AddressUnproven 1",
        ),
        (
            "of one that stopped, from there",
            by("n", Some(X)),
            vec![stopped(true)],
            "new displaces 1",
        ),
        (
            "of one without credentials",
            by("n", Some(Y)),
            vec![silent(false)],
            "new displaces 1",
        ),
        (
            "of one that was displaced, left or was revoked",
            by("n", Some(Y)),
            vec![stopped(false)],
            "new",
        ),
        ("the node itself", by("1", Some(Y)), vec![silent(true)], "1"),
        (
            "the node itself, stopped",
            by("1", None),
            vec![stopped(true)],
            "1",
        ),
        (
            "a node that has it beside one that had it",
            by("2", Some(Y)),
            vec![stopped(true), moved_in],
            "2",
        ),
        // Refused for want of a certificate, by rule 6.
        (
            "without a certificate",
            claim(Some("k"), "b", X),
            vec![silent(true)],
            "new displaces 1",
        ),
    ] {
        assert_eq!(say(&decide(&claim, &known)), expected, "{what}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Register {
        key: Option<u8>,
        hostname: u8,
        address: u8,
    },
    GoesDown(prop::sample::Index),
    Deregisters(prop::sample::Index),
    Heartbeat(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let register =
        (prop::option::of(0_u8..3), 0_u8..3, 0_u8..3).prop_map(|(key, hostname, address)| {
            Step::Register {
                key,
                hostname,
                address,
            }
        });
    let step = prop_oneof![
        6 => register,
        2 => any::<prop::sample::Index>().prop_map(Step::GoesDown),
        1 => any::<prop::sample::Index>().prop_map(Step::Deregisters),
        2 => any::<prop::sample::Index>().prop_map(Step::Heartbeat),
    ];
    prop::collection::vec(step, 0..100)
}

proptest! {
    /// Applies verdicts to a world of nodes in which everything else happens as well.
    #[test]
    fn no_two_live_nodes_ever_share_an_address_or_a_key(steps in steps()) {
        let mut world: Vec<Claimant> = Vec::new();
        for step in steps {
            match step {
                Step::Register { key, hostname, address } => {
                    let key = key.map(|k| format!("key-{k}"));
                    let hostname = format!("host-{hostname}");
                    let host_ip = Ipv4Addr::new(192, 0, 2, address);
                    let claim = claim(key.as_deref(), &hostname, host_ip);
                    let known: Vec<_> = world.iter()
                        .filter(|n| n.host_ip == host_ip || (key.is_some() && n.node_key == key))
                        .cloned()
                        .collect();
                    let (node, displaced) = match decide(&claim, &known) {
                        Verdict::Refuse { holder, .. } => {
                            prop_assert!(holder.up, "only a live node refuses others: {holder:?}");
                            continue;
                        }
                        Verdict::Admit { node, displaces } =>
                            (node.map(|n| n.node_id.clone()), displaces.map(|n| n.node_id.clone())),
                    };
                    if let Some(displaced) = displaced {
                        let old = world.iter_mut().find(|n| n.node_id == displaced).unwrap();
                        prop_assert!(!old.up);
                        old.holds_address = false;
                    }
                    let new = Claimant {
                        node_id: node.clone().unwrap_or_else(|| NodeId::from(world.len().to_string())),
                        node_key: key.clone(),
                        hostname: hostname.clone(),
                        host_ip,
                        up: true,
                        holds_address: true,
                        keeps_address: false,
                    };
                    match node {
                        Some(id) => *world.iter_mut().find(|n| n.node_id == id).unwrap() = new.clone(),
                        None => world.push(new.clone()),
                    }
                    // Saying the same thing again is the same node.
                    let known: Vec<_> = world.iter()
                        .filter(|n| n.host_ip == host_ip || (key.is_some() && n.node_key == key))
                        .cloned()
                        .collect();
                    prop_assert_eq!(say(&decide(&claim, &known)), new.node_id.to_string());
                }
                Step::GoesDown(pick) if !world.is_empty() => {
                    let count = world.len();
                    world[pick.index(count)].up = false;
                }
                Step::Deregisters(pick) if !world.is_empty() => {
                    let count = world.len();
                    let node = &mut world[pick.index(count)];
                    (node.up, node.holds_address) = (false, false);
                }
                Step::Heartbeat(pick) if !world.is_empty() => {
                    let count = world.len();
                    let node = &mut world[pick.index(count)];
                    node.up |= node.holds_address;
                }
                _ => {}
            }
            let mut holders = BTreeMap::new();
            let mut keys = BTreeSet::new();
            for node in &world {
                prop_assert!(!node.up || node.holds_address);
                if node.holds_address {
                    let other = holders.insert(node.host_ip, node.node_id.clone());
                    prop_assert_eq!(other, None, "two holders of {}", node.host_ip);
                }
                if let Some(key) = &node.node_key {
                    prop_assert!(keys.insert(key.clone()), "two nodes with {}", key);
                }
            }
        }
    }
}
