//! Tests of [`super::assess`]: named cases, then properties over arbitrary lists.

use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(60);

fn own() -> OwnNode {
    OwnNode {
        node_id: "own".to_owned(),
        subnet: "10.42.1.0/24".parse().unwrap(),
        host_address: Ipv4Addr::new(192, 0, 2, 1),
    }
}

fn own_entry() -> Node {
    node("own", "10.42.1.0/24", "192.0.2.1")
}

fn node(node_id: &str, subnet: &str, host_ip: &str) -> Node {
    Node {
        node_id: node_id.to_owned(),
        hostname: format!("host-{node_id}"),
        host_ip: host_ip.to_owned(),
        subnet: subnet.to_owned(),
        status: Status::Up,
        registered_at: 0,
    }
}

fn down(node: Node) -> Node {
    Node {
        status: Status::Down,
        ..node
    }
}

/// Feeds lists one after another, a second apart, each with the own node added.
fn after(lists: &[&[Node]]) -> Assessment {
    let mut known = KnownPeers::new();
    let mut now = Instant::now();
    let mut last = None;
    for list in lists {
        let mut nodes = vec![own_entry()];
        nodes.extend_from_slice(list);
        let assessment = assess(&known, &nodes, &own(), now, GRACE).unwrap();
        known.clone_from(&assessment.peers);
        last = Some(assessment);
        now += Duration::from_secs(1);
    }
    last.unwrap()
}

fn holders(assessment: &Assessment) -> Vec<(String, String)> {
    assessment
        .peers
        .iter()
        .map(|(subnet, known)| (subnet.to_string(), known.node_id.clone()))
        .collect()
}

fn holding(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(subnet, id)| ((*subnet).to_owned(), (*id).to_owned()))
        .collect()
}

fn b() -> Node {
    node("b", "10.42.2.0/24", "192.0.2.2")
}

fn c() -> Node {
    node("c", "10.42.3.0/24", "192.0.2.3")
}

#[test]
fn every_other_node_that_is_up_is_a_peer() {
    let result = after(&[&[b(), c(), down(node("d", "10.42.4.0/24", "192.0.2.4"))]]);
    assert_eq!(
        holders(&result),
        holding(&[("10.42.2.0/24", "b"), ("10.42.3.0/24", "c")])
    );
    assert!(result.skipped.is_empty(), "{:?}", result.skipped);
    let known = &result.peers[&"10.42.2.0/24".parse().unwrap()];
    assert_eq!(known.peer.host_address, Ipv4Addr::new(192, 0, 2, 2));
    assert_eq!(known.peer.hostname, "host-b");
}

#[test]
fn a_node_that_is_down_leaves_at_once() {
    let result = after(&[&[b(), c()], &[down(b()), c()]]);
    assert_eq!(holders(&result), holding(&[("10.42.3.0/24", "c")]));
}

#[test]
fn a_list_without_this_node_is_about_another_cluster() {
    let now = Instant::now();
    let empty = assess(&KnownPeers::new(), &[], &own(), now, GRACE).unwrap_err();
    assert_eq!(empty, UnusableList::OwnNodeMissing { listed: 0 });
    let foreign = assess(&KnownPeers::new(), &[b()], &own(), now, GRACE).unwrap_err();
    assert_eq!(foreign, UnusableList::OwnNodeMissing { listed: 1 });
}

#[test]
fn a_list_with_another_subnet_for_this_node_is_unusable() {
    let nodes = [node("own", "10.42.9.0/24", "192.0.2.1"), b()];
    let error = assess(&KnownPeers::new(), &nodes, &own(), Instant::now(), GRACE).unwrap_err();
    assert!(
        matches!(error, UnusableList::OwnSubnetDiffers { .. }),
        "{error}"
    );
}

#[test]
fn an_absent_peer_stays_for_the_grace_and_then_leaves() {
    let start = Instant::now();
    let first = assess(
        &KnownPeers::new(),
        &[own_entry(), b()],
        &own(),
        start,
        GRACE,
    )
    .unwrap();
    let absent = |known: &KnownPeers, seconds| {
        let now = start + Duration::from_secs(seconds);
        assess(known, &[own_entry()], &own(), now, GRACE)
            .unwrap()
            .peers
    };
    let kept = absent(&first.peers, 5);
    assert_eq!(kept.len(), 1);
    let still = absent(&kept, 65);
    assert_eq!(still, kept, "60 s after the first list without it");
    assert!(absent(&still, 66).is_empty());

    let back = assess(&still, &[own_entry(), b()], &own(), start, GRACE).unwrap();
    assert_eq!(back, first, "its return starts the grace anew");
}

#[test]
fn an_absent_peer_gives_way_to_the_node_that_has_its_subnet_now() {
    let result = after(&[&[b()], &[node("new", "10.42.2.0/24", "192.0.2.9")]]);
    assert_eq!(holders(&result), holding(&[("10.42.2.0/24", "new")]));
}

#[test]
fn a_malformed_entry_of_a_known_peer_does_not_remove_it() {
    for (subnet, host_ip) in [
        ("10.42.2.0", "192.0.2.2"),
        ("10.42.2.1/24", "192.0.2.2"),
        ("0.0.0.0/0", "192.0.2.2"),
        ("10.42.2.0/24", ""),
        ("10.42.2.0/24", "224.0.0.1"),
    ] {
        let result = after(&[&[b()], &[node("b", subnet, host_ip)]]);
        assert_eq!(
            holders(&result),
            holding(&[("10.42.2.0/24", "b")]),
            "{subnet} {host_ip}"
        );
        assert!(result.skipped.contains_key("b"));
        let stranger = after(&[&[node("b", subnet, host_ip)]]);
        assert!(stranger.peers.is_empty(), "{subnet} {host_ip}");
    }
}

#[test]
fn an_unknown_status_neither_adds_nor_removes() {
    let odd = Node {
        status: Status::Unknown,
        ..b()
    };
    let odd = [odd];
    assert_eq!(after(&[&[b()], &odd]).peers.len(), 1);
    let stranger = after(&[&odd]);
    assert!(stranger.peers.is_empty());
    assert_eq!(stranger.skipped["b"], Skip::Status);
}

#[test]
fn of_two_nodes_with_one_subnet_the_known_one_keeps_it() {
    let rival = Node {
        registered_at: -1,
        ..node("a", "10.42.2.0/24", "192.0.2.9")
    };
    let result = after(&[&[b()], &[rival.clone(), b()]]);
    assert_eq!(holders(&result), holding(&[("10.42.2.0/24", "b")]));
    assert!(matches!(result.skipped["a"], Skip::SubnetTaken { .. }));

    let strangers = after(&[&[b(), rival]]);
    assert_eq!(holders(&strangers), holding(&[("10.42.2.0/24", "a")]));
}

#[test]
fn of_two_nodes_with_one_address_the_known_one_keeps_it() {
    let moved = node("b", "10.42.2.0/24", "192.0.2.3");
    let result = after(&[&[b(), c()], &[moved, c()]]);
    assert!(matches!(result.skipped["b"], Skip::AddressTaken { .. }));
    assert_eq!(
        holders(&result),
        holding(&[("10.42.2.0/24", "b"), ("10.42.3.0/24", "c")]),
        "and the other stays as it was"
    );
}

#[test]
fn overlapping_subnets_are_one_claim() {
    let result = after(&[&[b()], &[b(), node("wide", "10.42.2.0/23", "192.0.2.8")]]);
    assert_eq!(holders(&result), holding(&[("10.42.2.0/24", "b")]));
    let result = after(&[
        &[b()],
        &[b(), node("narrow", "10.42.2.128/25", "192.0.2.8")],
    ]);
    assert_eq!(holders(&result), holding(&[("10.42.2.0/24", "b")]));
}

#[test]
fn nobody_gets_this_nodes_subnet_or_address() {
    let result = after(&[&[
        node("thief", "10.42.1.0/24", "192.0.2.7"),
        node("wide", "10.42.0.0/16", "192.0.2.8"),
        node("mirror", "10.42.7.0/24", "192.0.2.1"),
    ]]);
    assert!(result.peers.is_empty());
    assert!(matches!(result.skipped["thief"], Skip::OwnSubnet { .. }));
    assert!(matches!(result.skipped["wide"], Skip::OwnSubnet { .. }));
    assert!(matches!(result.skipped["mirror"], Skip::OwnAddress(_)));
}

#[test]
fn a_peer_follows_its_new_subnet_and_address() {
    let result = after(&[&[b()], &[node("b", "10.42.5.0/24", "192.0.2.55")]]);
    assert_eq!(holders(&result), holding(&[("10.42.5.0/24", "b")]));
    let address = result.peers.values().next().unwrap().peer.host_address;
    assert_eq!(address, Ipv4Addr::new(192, 0, 2, 55));
}

#[test]
fn two_peers_swap_their_subnets() {
    let result = after(&[
        &[b(), c()],
        &[
            node("b", "10.42.3.0/24", "192.0.2.2"),
            node("c", "10.42.2.0/24", "192.0.2.3"),
        ],
    ]);
    assert_eq!(
        holders(&result),
        holding(&[("10.42.2.0/24", "c"), ("10.42.3.0/24", "b")])
    );
    assert!(result.skipped.is_empty());
}

#[test]
fn the_peer_of_a_subnet_that_became_ours_is_left_out() {
    let known = after(&[&[b(), c()]]).peers;
    let set = peer_set(&known, "10.42.2.0/24".parse().unwrap());
    let subnets: Vec<_> = set.keys().map(ToString::to_string).collect();
    assert_eq!(subnets, ["10.42.3.0/24"]);
}

#[test]
fn a_host_name_is_passed_on_without_control_characters() {
    let mut named = b();
    named.hostname = format!("x\u{1b}[2J{}", "y".repeat(1000));
    let result = after(&[&[named]]);
    let hostname = &result.peers.values().next().unwrap().peer.hostname;
    assert!(hostname.starts_with("x[2Jyyy"));
    assert_eq!(hostname.chars().count(), HOSTNAME_LIMIT);
}

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
        6 => Just(Status::Up),
        2 => Just(Status::Down),
        1 => Just(Status::Unknown)
    ];
    (id, subnet, address, status, -2i64..3).prop_map(
        |(node_id, subnet, host_ip, status, registered_at)| Node {
            hostname: String::new(),
            node_id,
            host_ip,
            subnet,
            status,
            registered_at,
        },
    )
}

fn any_list() -> impl Strategy<Value = Vec<Node>> {
    proptest::collection::vec(any_node(), 0..14).prop_map(|mut nodes| {
        nodes.push(own_entry());
        nodes
    })
}

proptest! {
    #[test]
    fn from_any_history_the_set_is_sound(
        lists in proptest::collection::vec(any_list(), 1..6),
        step in 0u64..40,
    ) {
        let start = Instant::now();
        let mut known = KnownPeers::new();
        for (round, list) in (0u64..).zip(&lists) {
            let now = start + Duration::from_secs(step * round);
            let result = assess(&known, list, &own(), now, GRACE).unwrap();

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
                    n.node_id == peer.node_id
                        && n.status == Status::Up
                        && n.subnet == subnet.to_string()
                        && n.host_ip == peer.peer.host_address.to_string()
                });
                match peer.unconfirmed_since {
                    None => prop_assert!(listed_so),
                    Some(since) => {
                        prop_assert_eq!(
                            known.get(subnet).map(|k| &k.peer), Some(&peer.peer),
                            "who is not listed is who was there"
                        );
                        prop_assert!(now - since <= GRACE);
                    }
                }
            }
            known = result.peers;
        }
    }

    #[test]
    fn the_same_list_again_changes_nothing(history in any_list(), list in any_list()) {
        let now = Instant::now();
        let known = assess(&KnownPeers::new(), &history, &own(), now, GRACE).unwrap().peers;
        let once = assess(&known, &list, &own(), now, GRACE).unwrap();
        let twice = assess(&once.peers, &list, &own(), now, GRACE).unwrap();
        prop_assert_eq!(once.peers, twice.peers);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        history in any_list(),
        (list, shuffled) in any_list().prop_flat_map(|list| {
            // Node ids are unique in a list; which of two entries with one id holds is open.
            let unique: BTreeMap<_, _> = list.into_iter().map(|n| (n.node_id.clone(), n)).collect();
            let list: Vec<_> = unique.into_values().collect();
            (Just(list.clone()), Just(list).prop_shuffle())
        }),
    ) {
        let now = Instant::now();
        let known = assess(&KnownPeers::new(), &history, &own(), now, GRACE).unwrap().peers;
        prop_assert_eq!(
            assess(&known, &list, &own(), now, GRACE),
            assess(&known, &shuffled, &own(), now, GRACE)
        );
    }
}
