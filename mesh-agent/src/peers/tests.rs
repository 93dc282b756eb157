//! Tests of [`super::assess`]: named cases.

use std::{sync::Arc, time::Duration};

use super::*;

pub(super) const GRACE: Duration = Duration::from_secs(60);

pub(super) fn own() -> OwnNode {
    OwnNode {
        node_id: "own".to_owned(),
        subnet: "10.42.1.0/24".parse().unwrap(),
        host_address: Ipv4Addr::new(192, 0, 2, 1),
    }
}

pub(super) fn own_entry() -> Node {
    node("own", "10.42.1.0/24", "192.0.2.1")
}

pub(super) fn node(node_id: &str, subnet: &str, host_ip: &str) -> Node {
    Node {
        node_id: node_id.to_owned().into(),
        hostname: format!("host-{node_id}").into(),
        host_ip: host_ip.to_owned().into(),
        subnet: subnet.to_owned().into(),
        status: "up".into(),
        ..Node::default()
    }
}

fn down(node: Node) -> Node {
    Node {
        status: "down".into(),
        ..node
    }
}

fn left(node: Node) -> Node {
    Node {
        left: true,
        ..down(node)
    }
}

pub(super) fn judge_list(
    known: &KnownPeers,
    nodes: &[Node],
    now: Instant,
) -> Result<Assessment, UnusableList> {
    assess(known, nodes, &BTreeSet::new(), &own(), now)
}

/// Feeds lists one after another, a second apart, each with the own node added. Before each
/// further list the data plane says the same of whoever is in doubt.
fn after_hearing(verdict: Option<Verdict>, lists: &[&[Node]]) -> Assessment {
    let mut known = KnownPeers::new();
    let mut now = Instant::now();
    let mut last = None;
    for list in lists {
        let mut nodes = vec![own_entry()];
        nodes.extend_from_slice(list);
        let mut assessment = judge_list(&known, &nodes, now).unwrap();
        if let Some(verdict) = verdict {
            assessment.peers = said(&assessment.peers, verdict, now);
        }
        known.clone_from(&assessment.peers);
        last = Some(assessment);
        now += Duration::from_secs(1);
    }
    last.unwrap()
}

fn said(known: &KnownPeers, verdict: Verdict, now: Instant) -> KnownPeers {
    let doubtful = known.iter().filter(|(_, peer)| peer.doubt.is_some());
    let verdicts = doubtful.map(|(subnet, _)| (*subnet, verdict)).collect();
    judge(known, &verdicts, now, GRACE)
}

fn after(lists: &[&[Node]]) -> Assessment {
    after_hearing(Some(Verdict::Dead), lists)
}

fn holders(assessment: &Assessment) -> Vec<(String, String)> {
    assessment
        .peers
        .iter()
        .map(|(subnet, known)| (subnet.to_string(), known.name().to_owned()))
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
fn a_node_that_is_down_leaves_when_the_data_plane_does_not_hear_it_either() {
    let lists: [&[Node]; 2] = [&[b(), c()], &[down(b()), c()]];
    let both = holding(&[("10.42.2.0/24", "b"), ("10.42.3.0/24", "c")]);
    let only_c = holding(&[("10.42.3.0/24", "c")]);
    for (verdict, left) in [
        (None, &both),
        (Some(Verdict::Alive), &both),
        (Some(Verdict::Inconclusive), &both),
        (Some(Verdict::Dead), &only_c),
        (Some(Verdict::CannotTell), &only_c),
    ] {
        let result = after_hearing(verdict, &lists);
        assert_eq!(holders(&result), *left, "{verdict:?}");
        let suspects = peer_set(&result.peers).into_values().filter(|p| p.suspect);
        assert_eq!(
            suspects.count(),
            usize::from(verdict == Some(Verdict::Alive))
        );
    }
}

#[test]
fn a_node_that_was_removed_leaves_at_once_whatever_is_heard() {
    let lists: [&[Node]; 2] = [&[b(), c()], &[b(), down(c())]];
    let result = after_hearing(Some(Verdict::Alive), &lists);
    let removed = BTreeSet::from(["b".to_owned(), "c".to_owned()]);
    let now = Instant::now();
    let result = assess(&result.peers, &[own_entry()], &removed, &own(), now).unwrap();
    assert!(result.peers.is_empty());
}

#[test]
fn a_node_that_left_for_good_is_gone_whatever_its_packets_say() {
    for verdict in [None, Some(Verdict::Alive), Some(Verdict::Inconclusive)] {
        let lists: [&[Node]; 3] = [&[b(), c()], &[down(b()), c()], &[left(b()), c()]];
        let result = after_hearing(verdict, &lists);
        assert_eq!(
            holders(&result),
            holding(&[("10.42.3.0/24", "c")]),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_peer_left_by_an_earlier_life_is_named_by_the_list_or_doubted() {
    let stranger = |last| {
        KnownPeer::unnamed(Peer {
            host_address: Ipv4Addr::new(192, 0, 2, last),
            hostname: String::new(),
            mtu: None,
        })
    };
    let present: KnownPeers = [
        (2, "10.42.2.0/24"),
        (3, "10.42.3.0/24"),
        (4, "10.42.4.0/24"),
    ]
    .map(|(last, subnet)| (subnet.parse().unwrap(), stranger(last)))
    .into();
    let down = down(node("d", "10.42.4.0/24", "192.0.2.4"));
    let now = Instant::now();
    let result = judge_list(&present, &[own_entry(), b(), down], now).unwrap();
    assert_eq!(
        holders(&result),
        holding(&[
            ("10.42.2.0/24", "b"),
            ("10.42.3.0/24", "(not listed)"),
            ("10.42.4.0/24", "d")
        ])
    );
    let causes = result.peers.values().map(|peer| &peer.doubt);
    let causes: Vec<_> = causes.map(|d| d.as_ref().map(Doubt::cause)).collect();
    assert_eq!(causes, [None, Some(Cause::Absent), Some(Cause::Down)]);
    let gone = left(node("d", "10.42.4.0/24", "192.0.2.4"));
    let result = judge_list(&present, &[own_entry(), b(), gone], now).unwrap();
    assert_eq!(result.peers.len(), 2, "who left is gone, also unnamed");
    let wiped = judge_list(&present, &[own_entry()], now).unwrap();
    assert_eq!(
        wiped.peers.len(),
        3,
        "nobody is dropped before they register again"
    );
    assert!(wiped.peers.values().all(|peer| peer.doubt.is_some()));
}

#[test]
fn a_list_without_this_node_is_about_another_cluster() {
    let now = Instant::now();
    let empty = judge_list(&KnownPeers::new(), &[], now).unwrap_err();
    assert_eq!(empty, UnusableList::OwnNodeMissing { listed: 0 });
    let foreign = judge_list(&KnownPeers::new(), &[b()], now).unwrap_err();
    assert_eq!(foreign, UnusableList::OwnNodeMissing { listed: 1 });
}

#[test]
fn a_list_with_another_subnet_for_this_node_is_unusable() {
    let nodes = [node("own", "10.42.9.0/24", "192.0.2.1"), b()];
    let error = judge_list(&KnownPeers::new(), &nodes, Instant::now()).unwrap_err();
    assert!(
        matches!(error, UnusableList::OwnSubnetDiffers { .. }),
        "{error}"
    );
}

#[test]
fn an_absent_peer_stays_for_the_grace_and_then_leaves_unless_it_is_heard() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let first = judge_list(&KnownPeers::new(), &[own_entry(), b()], start).unwrap();
    let absent = |known: &KnownPeers, verdict, seconds| {
        let known = judge_list(known, &[own_entry()], at(seconds))
            .unwrap()
            .peers;
        said(&known, verdict, at(seconds))
    };
    for deaf in [Verdict::Dead, Verdict::CannotTell, Verdict::Inconclusive] {
        let kept = absent(&first.peers, deaf, 5);
        let still = absent(&kept, deaf, 65);
        assert_eq!(still.len(), 1, "60 s after the first list without it");
        let later = judge_list(&still, &[own_entry()], at(3600)).unwrap();
        assert_eq!(later.peers, still, "and not before it was asked again");
        assert!(absent(&still, deaf, 66).is_empty(), "{deaf:?}");

        let back = judge_list(&still, &[own_entry(), b()], at(65)).unwrap();
        assert_eq!(back, first, "its return starts the grace anew");

        let heard = absent(&kept, Verdict::Alive, 600);
        assert_eq!(
            absent(&heard, deaf, 660).len(),
            1,
            "60 s after it was heard"
        );
        assert!(absent(&heard, deaf, 661).is_empty(), "{deaf:?}");
    }
}

#[test]
fn what_was_asked_before_the_doubt_does_not_end_it() {
    let asked = Instant::now();
    let now = asked + Duration::from_secs(1);
    let first = judge_list(&KnownPeers::new(), &[own_entry(), b()], asked).unwrap();
    let doubted = judge_list(&first.peers, &[own_entry(), down(b())], now).unwrap();
    let verdicts = BTreeMap::from([("10.42.2.0/24".parse().unwrap(), Verdict::Dead)]);
    let late = judge(&doubted.peers, &verdicts, asked, GRACE);
    assert_eq!(late, doubted.peers);
    assert!(judge(&doubted.peers, &verdicts, now, GRACE).is_empty());
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
        status: "draining".into(),
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
    let set = without_own(&Arc::new(peer_set(&known)), "10.42.2.0/24".parse().unwrap());
    let subnets: Vec<_> = set.keys().map(ToString::to_string).collect();
    assert_eq!(subnets, ["10.42.3.0/24"]);
}

#[test]
fn a_host_name_is_passed_on_without_control_characters() {
    let mut named = b();
    named.hostname = format!("x\u{1b}[2J{}", "y".repeat(1000)).into();
    let result = after(&[&[named]]);
    let hostname = &result.peers.values().next().unwrap().peer.hostname;
    assert!(hostname.starts_with("x[2Jyyy"));
    assert_eq!(hostname.chars().count(), HOSTNAME_LIMIT);
}
