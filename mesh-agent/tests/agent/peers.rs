//! What the agent makes of the control plane's lists, good and bad.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::json;

use crate::{
    fake_control_plane::{Answer, FakeControlPlane},
    fake_runtime::{Call, FakeRuntime, inject, subnet},
    process::{Agent, HOST_IP},
};

pub(crate) fn settled(
    control: &FakeControlPlane,
    runtime: &FakeRuntime,
    arguments: &[&str],
) -> Agent {
    control.add_peer(2);
    control.add_peer(3);
    let agent = Agent::start(control, runtime, arguments);
    agent.until("two routes", || runtime.routes() == [2, 3]);
    agent
}

pub(crate) fn removals(runtime: &FakeRuntime) -> Vec<Call> {
    let mut calls = runtime.calls_since(0);
    calls.retain(|call| matches!(call, Call::Remove(_)));
    calls
}

#[test]
fn who_joins_gets_a_route_and_who_leaves_loses_it_and_no_route_points_at_nothing() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    assert_eq!(runtime.peers(), [2, 3]);

    control.add_peer(4);
    control.set(2, "status", "down");
    agent.until("3 and 4", || {
        runtime.routes() == [3, 4] && runtime.peers() == [3, 4]
    });
    control.set(2, "status", "up");
    agent.until("2, 3 and 4", || runtime.routes() == [2, 3, 4]);

    assert_eq!(removals(&runtime), [Call::Remove(subnet(2))]);
    assert_eq!(runtime.state().violations, [""; 0]);
    let calls = runtime.calls_since(0);
    let injections = calls.iter().filter(|call| matches!(call, Call::Inject(..)));
    assert_eq!(injections.count(), 0, "the routes come with the peers");
}

#[test]
fn a_runtime_with_three_calls_is_told_of_each_join_and_each_leave_once() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    // No injection of all routes in between.
    let agent = settled(&control, &runtime, &["--reinject-interval", "1h"]);
    control.add_peer(4);
    control.set(2, "status", "down");
    agent.until("3 and 4", || runtime.routes() == [3, 4]);
    control.set(2, "status", "up");
    agent.until("2, 3 and 4", || runtime.routes() == [2, 3, 4]);
    assert_eq!(removals(&runtime), [Call::Remove(subnet(2))]);
    let calls = runtime.calls_since(0);
    let injected = |n| calls.iter().filter(|call| **call == inject(n)).count();
    assert_eq!([2, 3, 4].map(injected), [2, 1, 1], "each join is one call");
}

#[test]
fn every_sync_carries_the_whole_set_and_a_higher_generation() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    agent.until("five syncs", || runtime.syncs_since(0, 2) >= 5);
    let mut last = 1_700_000_000_000;
    for call in runtime.calls_since(0) {
        let Call::Sync {
            generation,
            host_address,
            peers,
            ..
        } = call
        else {
            continue;
        };
        assert!(generation > last, "{generation} after {last}");
        last = generation;
        assert_eq!(host_address, HOST_IP);
        let two_and_three = [2, 3].map(|n| (subnet(n), format!("192.0.2.{n}")));
        assert_eq!(peers, two_and_three);
    }
}

#[test]
fn a_peer_with_a_new_address_keeps_its_route() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    control.set(2, "host_ip", "192.0.2.200");
    agent.until("the new address", || {
        let moved = (subnet(2), "192.0.2.200".to_owned());
        let calls = runtime.calls_since(0);
        calls
            .iter()
            .any(|call| matches!(call, Call::Sync { peers, .. } if peers.contains(&moved)))
    });
    assert_eq!(removals(&runtime), []);
}

#[test]
fn a_control_plane_that_is_gone_removes_nothing() {
    let (mut control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    control.stop();
    agent.until_logged("no node list");
    let mark = runtime.calls();
    agent.until("syncs go on", || runtime.syncs_since(mark, 2) >= 3);

    runtime.restart_empty();
    agent.until(
        "a new runtime gets everything without a control plane",
        || runtime.routes() == [2, 3] && runtime.peers() == [2, 3],
    );
    control.resume();
    control.add_peer(4);
    agent.until("news arrive again", || runtime.routes() == [2, 3, 4]);
    assert_eq!(removals(&runtime), []);
    assert_eq!(agent.logged("no node list"), 1, "{:#?}", agent.log());
}

#[test]
fn an_answer_that_is_no_list_removes_nothing() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    let entry = r#"{"node_id":"a","hostname":"b","host_ip":"c","subnet":"d","status":"up"},"#;
    let nodes = entry.repeat((10 << 20) / entry.len());
    for (name, answer, logged) in [
        (
            "garbage",
            Answer::Body("<html>".to_owned()),
            "not what the contract says",
        ),
        (
            "a number",
            Answer::Body("17".to_owned()),
            "invalid type: integer",
        ),
        (
            "wrong types",
            Answer::Body(r#"{"nodes":[{"node_id":7}]}"#.to_owned()),
            "invalid type: integer `7`",
        ),
        (
            "missing fields",
            Answer::Body(r#"{"nodes":[{"node_id":"x"}]}"#.to_owned()),
            "missing field `host_ip`",
        ),
        (
            "no nodes",
            Answer::Body("{}".to_owned()),
            "missing field `nodes`",
        ),
        (
            "10 MB of nothing",
            Answer::Body(" ".repeat(10 << 20)),
            "EOF while parsing",
        ),
        (
            "10 MB cut short",
            Answer::Body(format!("{{\"nodes\":[{nodes}")),
            "not what the contract says",
        ),
        (
            "20 MB",
            Answer::Body(" ".repeat(20 << 20)),
            "larger than 16777216 bytes",
        ),
        (
            "a broken server",
            Answer::Status(500),
            "500 Internal Server Error",
        ),
        ("a missing path", Answer::Status(404), "404 Not Found"),
        (
            "a redirect",
            Answer::Redirect("http://127.0.0.1:1/".to_owned()),
            "307 Temporary Redirect",
        ),
        (
            "one byte at a time",
            Answer::Drip,
            "no complete answer within",
        ),
        ("no answer", Answer::Hang, "no complete answer within"),
    ] {
        control.answer_lists(answer);
        let (lists, beats, mark) = (control.lists(), control.heartbeats(), runtime.calls());
        agent.until(name, || {
            control.lists() >= lists + 3
                && control.heartbeats() >= beats + 3
                && runtime.syncs_since(mark, 2) >= 3
        });
        agent.until_logged(logged);
    }
    control.answer_lists(Answer::Proper);
    control.add_peer(4);
    agent.until("a proper list counts again", || {
        runtime.routes() == [2, 3, 4]
    });
    assert_eq!(removals(&runtime), []);
    assert_eq!(control.registrations(), 1);
}

#[test]
fn an_empty_list_removes_nothing_and_registers_again() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &["--heartbeat-interval", "1h"]);
    control.answer_lists(Answer::Body(r#"{"nodes":[]}"#.to_owned()));
    agent.until("a second registration", || control.registrations() >= 2);
    let mark = runtime.calls();
    agent.until("syncs go on", || runtime.syncs_since(mark, 2) >= 3);
    assert_eq!(removals(&runtime), []);
    assert_eq!(runtime.routes(), [2, 3]);
}

#[test]
fn a_wiped_control_plane_gives_the_others_time_to_return() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    control.wipe();
    agent.until("a second registration", || control.registrations() >= 2);
    agent.until_logged("peer in doubt");
    control.add_peer(2);
    control.add_peer(4);
    agent.until("the new peer", || runtime.routes() == [2, 3, 4]);
    assert_eq!(
        removals(&runtime),
        [],
        "3 has not returned yet, and is kept"
    );
}

#[test]
fn a_peer_that_stays_forgotten_leaves_in_the_end() {
    let (control, runtime) = (FakeControlPlane::without_feed(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &["--absent-peer-grace", "500ms"]);
    control
        .state()
        .nodes
        .retain(|node| node["node_id"] != "peer-3");
    agent.until("3 is gone", || {
        runtime.routes() == [2] && runtime.peers() == [2]
    });
    assert_eq!(removals(&runtime), [Call::Remove(subnet(3))]);
}

#[test]
fn a_malformed_or_conflicting_node_is_skipped_and_logged_once() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    for n in 10..=14 {
        control.add_peer(n);
    }
    control.set(10, "subnet", "10.42.3.0/24");
    control.set(11, "subnet", "10.42.0.0/16");
    control.set(12, "subnet", "10.42.12.1/24");
    control.set(13, "host_ip", "0.0.0.0");
    control.set(14, "subnet", "10.42.1.0/24");
    let complaints = |n: u8| {
        let (log, node) = (agent.log(), format!("\"peer-{n}\": "));
        let complaint =
            |line: &&String| line.contains("listed nodes are no peers") && line.contains(&node);
        log.iter().filter(complaint).count()
    };
    agent.until("five complaints", || (10..=14).all(|n| complaints(n) > 0));
    let lists = control.lists();
    agent.until("more lists", || control.lists() >= lists + 5);
    for n in 10..=14 {
        assert_eq!(complaints(n), 1, "{:#?}", agent.log());
    }
    assert_eq!(runtime.routes(), [2, 3]);
    assert_eq!(runtime.peers(), [2, 3]);
}

#[test]
fn another_subnet_is_configured_as_soon_as_the_runtime_takes_it() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    runtime.state().refuse_subnets.insert(subnet(9));
    control.state().lease = 9;
    control.wipe();
    control.add_peer(2);
    control.add_peer(3);
    agent.until_logged("does not take the node's subnet");
    let mark = runtime.calls();
    agent.until("syncs go on", || runtime.syncs_since(mark, 2) >= 3);
    assert_eq!(runtime.state().subnet, subnet(1));
    assert_eq!(agent.logged("does not take"), 1, "{:#?}", agent.log());
    assert_eq!(control.state().deregistered, [""; 0]);

    runtime.state().refuse_subnets.clear();
    agent.until("the new subnet", || runtime.state().subnet == subnet(9));
}

#[test]
fn a_subnet_that_changes_hands_ends_with_its_new_holder() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    // The database is gone, and this node comes first to where node 2 was.
    control.state().lease = 2;
    control.wipe();
    agent.until("the new subnet", || runtime.state().subnet == subnet(2));
    agent.until("no route to ourselves", || {
        runtime.routes() == [3] && runtime.peers() == [3]
    });
    assert_eq!(removals(&runtime), [Call::Remove(subnet(2))]);
}

#[test]
fn sixty_thousand_nodes_that_are_no_peers_are_a_few_log_lines() {
    let (control, runtime) = (FakeControlPlane::without_feed(), FakeRuntime::start());
    let count = 60_000_u32;
    let node = |n: u32, subnet: Ipv4Net| {
        json!({
            "node_id": format!("peer-{n}"), "hostname": "", "status": "up", "registered_at": n,
            "host_ip": Ipv4Addr::from(0x6440_0000 + n), "subnet": subnet,
        })
    };
    let network = |base: u32, n: u32| Ipv4Net::new(Ipv4Addr::from(base + (n << 8)), 24).unwrap();
    // Half of them overlap each other; the other half the runtime does not take.
    let overlapping = (0..count / 2).map(|n| node(n, network(0x0a2a_0200, n % 2)));
    let rejected = (count / 2..count).map(|n| node(n, network(0x0b00_0000, n)));
    control.state().nodes = overlapping.chain(rejected).collect();
    let rejected = (count / 2..count).map(|n| network(0x0b00_0000, n).to_string());
    runtime.state().reject_peers = rejected.collect();
    let patient = [
        "--request-timeout",
        "20s",
        "--sync-interval",
        "1s",
        "--log-level",
        "info",
    ];
    let agent = Agent::start(&control, &runtime, &patient);
    agent.until("two syncs", || runtime.syncs_since(0, 2 + 30_000) >= 2);
    agent.until_logged("listed nodes are no peers");
    agent.until_logged("rejected peers");
    assert_eq!(agent.logged("count=29998"), 1, "{:#?}", agent.log());
    assert_eq!(agent.logged("count=30000"), 1, "{:#?}", agent.log());
    assert!(agent.log().len() < 30, "{:#?}", agent.log());
}
