//! Properties of lists and verdicts over arbitrary histories: what may remove a peer.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    tests::{GRACE, judge_list, own, own_entry},
    *,
};

/// Lists that collide often: few ids, few subnets of several sizes, few addresses, rubbish.
fn any_node() -> impl Strategy<Value = Node> {
    let id = prop_oneof![Just("own".to_owned()), "[a-f]"];
    let subnet = prop_oneof![
        8 => (0u8..8).prop_map(|third| format!("10.42.{third}.0/24")),
        1 => Just("10.42.2.0/23".to_owned()),
        1 => Just("10.42.4.128/25".to_owned()),
        1 => Just("10.42.0.0/16".to_owned()),
        1 => "\\PC{0,12}",
    ];
    let address = prop_oneof![
        8 => (1u8..8).prop_map(|last| format!("192.0.2.{last}")),
        1 => "\\PC{0,12}",
    ];
    let status = prop_oneof![
        6 => Just("up"),
        2 => Just("down"),
        1 => Just("draining")
    ];
    (id, subnet, address, status, any::<bool>(), -2i64..3).prop_map(
        |(node_id, subnet, host_ip, status, left, registered_at)| Node {
            node_id: node_id.into(),
            host_ip: host_ip.into(),
            subnet: subnet.into(),
            status: status.into(),
            left,
            registered_at,
            ..Node::default()
        },
    )
}

fn any_list() -> impl Strategy<Value = Vec<Node>> {
    proptest::collection::vec(any_node(), 0..14).prop_map(|mut nodes| {
        nodes.push(own_entry());
        // Node ids are unique in a list.
        let unique: BTreeMap<_, _> = nodes.into_iter().map(|n| (n.node_id.clone(), n)).collect();
        unique.into_values().collect()
    })
}

fn subnet(third: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24)
}

/// Seconds, of the order of the grace or far less.
fn any_pause() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..8, 0u64..90]
}

fn any_verdicts() -> impl Strategy<Value = BTreeMap<Ipv4Net, Verdict>> {
    let verdict = prop_oneof![
        Just(Verdict::Alive),
        Just(Verdict::Dead),
        Just(Verdict::Inconclusive),
        Just(Verdict::CannotTell),
    ];
    proptest::collection::btree_map((0u8..8).prop_map(subnet), verdict, 0..8)
}

proptest! {
    #[test]
    fn from_any_history_the_set_is_sound(
        lists in proptest::collection::vec((any_list(), any_verdicts()), 1..6),
        step in 0u64..40,
    ) {
        let start = Instant::now();
        let mut known = KnownPeers::new();
        for (round, (list, verdicts)) in (0u64..).zip(&lists) {
            let now = start + Duration::from_secs(step * round);
            let result = judge_list(&known, list, now).unwrap();

            let subnets: Vec<_> = result.peers.keys().copied().collect();
            for (i, a) in subnets.iter().enumerate() {
                prop_assert!(!overlap(*a, own().subnet), "never the own subnet");
                for b in &subnets[i + 1..] {
                    prop_assert!(!overlap(*a, *b), "never one subnet twice: {} {}", a, b);
                }
            }
            let addresses: BTreeSet<_> =
                result.peers.values().map(|k| k.peer.host_address).collect();
            prop_assert_eq!(addresses.len(), subnets.len(), "never one address twice");
            prop_assert!(!addresses.contains(&own().host_address));

            for (subnet, peer) in &result.peers {
                let listed_so = list.iter().any(|n| {
                    Some(&*n.node_id) == peer.node_id.as_deref()
                        && n.status() == Some(Status::Up)
                        && n.subnet == subnet.to_string()
                        && n.host_ip == peer.peer.host_address.to_string()
                });
                match &peer.doubt {
                    None => prop_assert!(listed_so),
                    Some(doubt) => {
                        prop_assert_eq!(
                            known.get(subnet).map(|k| &k.peer), Some(&peer.peer),
                            "who is not listed is who was there"
                        );
                        prop_assert!(!doubt.is_over(GRACE));
                    }
                }
            }
            known = judge(&result.peers, verdicts, now, GRACE);
        }
    }

    #[test]
    fn the_same_list_again_changes_nothing(history in any_list(), list in any_list()) {
        let now = Instant::now();
        let known = judge_list(&KnownPeers::new(), &history, now).unwrap().peers;
        let once = judge_list(&known, &list, now).unwrap();
        let twice = judge_list(&once.peers, &list, now).unwrap();
        prop_assert_eq!(once.peers, twice.peers);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        history in any_list(),
        (list, shuffled) in any_list()
            .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
    ) {
        let now = Instant::now();
        let known = judge_list(&KnownPeers::new(), &history, now).unwrap().peers;
        prop_assert_eq!(
            judge_list(&known, &list, now),
            judge_list(&known, &shuffled, now)
        );
    }

    /// Whatever a control plane lists, restarts, wipes or restores.
    #[test]
    fn who_is_heard_stays_unless_it_left_moved_or_another_has_its_place(
        steps in proptest::collection::vec((any_list(), any_verdicts(), any_pause()), 1..8),
        heard in proptest::collection::btree_set(0u8..8, 0..8),
        seeded in any::<bool>(),
    ) {
        let heard: BTreeSet<Ipv4Net> = heard.into_iter().map(subnet).collect();
        let mut now = Instant::now();
        let mut known = KnownPeers::new();
        if seeded {
            for net in heard.iter().filter(|net| **net != own().subnet) {
                let third = net.addr().octets()[2];
                let host_address = Ipv4Addr::new(198, 51, 100, third);
                let peer = Peer { host_address, hostname: String::new(), mtu: None };
                known.insert(*net, KnownPeer::unnamed(peer));
            }
        }
        for (list, mut verdicts, seconds) in steps {
            now += Duration::from_secs(seconds);
            let result = judge_list(&known, &list, now).unwrap().peers;
            for (net, peer) in known.iter().filter(|(net, _)| heard.contains(net)) {
                let name = |node: &Node| Some(&*node.node_id) == peer.node_id.as_deref()
                    || peer.node_id.is_none() && parse_subnet(&node.subnet) == Ok(*net);
                let left = list.iter().any(|n| name(n) && n.status() == Some(Status::Down) && n.left);
                let replaced = result.iter().any(|(other, new)| new.doubt.is_none()
                    && (overlap(*other, *net)
                        || new.peer.host_address == peer.peer.host_address
                        || new.node_id.is_some() && new.node_id == peer.node_id));
                prop_assert!(
                    result.contains_key(net) || left || replaced,
                    "{} was heard and is gone", net
                );
                prop_assert!(
                    !left || replaced || peer.node_id.is_none() || !result.contains_key(net),
                    "{} left and is still there", net
                );
            }
            verdicts.extend(heard.iter().map(|net| (*net, Verdict::Alive)));
            known = judge(&result, &verdicts, now, GRACE);
            for net in result.keys().filter(|net| heard.contains(net)) {
                prop_assert!(known.contains_key(net), "{} was heard and is gone", net);
            }
        }
    }

    #[test]
    fn who_is_down_and_dead_is_gone(history in any_list(), list in any_list()) {
        let now = Instant::now();
        let known = judge_list(&KnownPeers::new(), &history, now).unwrap().peers;
        let result = judge_list(&known, &list, now).unwrap().peers;
        let dead = result.keys().map(|net| (*net, Verdict::Dead)).collect();
        let left = judge(&result, &dead, now, GRACE);
        for (net, peer) in &result {
            let absent = peer.doubt.as_ref().is_none_or(|d| d.cause() == Cause::Absent);
            prop_assert_eq!(left.contains_key(net), absent);
        }
    }
}
