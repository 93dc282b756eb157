//! The agent against the real control plane.

use std::{process::Stdio, time::Duration};

use crate::{
    control::{Control, Node},
    fake_control_plane::server,
    fake_runtime::{Call, subnet},
    process::{Agent, BINARY},
};

#[test]
fn a_node_that_joins_leaves_or_falls_silent_is_noticed_without_a_poll() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path(), None);
    let [a, b, c] = [1, 2, 3].map(Node::new);
    let agent = a.agent(&control, &[]);
    agent.until("its subnet", || a.runtime.state().subnet == subnet(1));
    let mut agent_b = b.agent(&control, &[]);
    agent.until("b joins", || a.runtime.routes() == [2]);
    let agent_c = c.agent(&control, &[]);
    agent.until("c joins", || a.runtime.routes() == [2, 3]);
    agent_c.until("c sees both", || c.runtime.routes() == [1, 2]);

    assert!(agent_b.terminate().success());
    agent.until("b leaves", || a.runtime.routes() == [3]);
    let _agent_b = b.agent(&control, &[]);
    agent.until("b returns", || a.runtime.routes() == [2, 3]);

    a.runtime.state().alive.insert(subnet(3));
    drop(agent_c);
    agent.until_logged("peer suspect");
    assert_eq!(a.runtime.routes(), [2, 3], "c is heard");
    let _agent_c = c.agent(&control, &[]);
    agent.until_logged("peer confirmed");
    // That it lets everybody in is said once, whatever it answers from then on.
    let insecure = agent.logged("the control plane lets in whoever reaches it");
    assert_eq!(insecure, 1, "{:#?}", agent.log());
    assert_eq!(agent.logged("no node list"), 0, "{:#?}", agent.log());
    assert_eq!(agent.logged("fetching all of it"), 0, "{:#?}", agent.log());
}

#[test]
fn a_restart_of_an_agent_takes_nothing_away_from_its_peers() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path(), None);
    let [a, b] = [1, 2].map(Node::new);
    let agent = a.agent(&control, &[]);
    agent.until("its subnet", || a.runtime.state().subnet == subnet(1));
    let mut agent_b = b.agent(&control, &[]);
    agent.until("b joins", || a.runtime.routes() == [2]);
    agent_b.until("b sees a", || b.runtime.routes() == [1]);

    // What the runtime of b put in place goes on without its agent.
    a.runtime.state().alive.insert(subnet(2));
    let (mark, mark_b) = (a.runtime.calls(), b.runtime.calls());
    assert!(agent_b.terminate().success());
    agent.until_logged("peer suspect");
    let agent_b = b.agent(&control, &[]);
    agent.until_logged("peer confirmed again");
    agent_b.until("b sees a again", || b.runtime.syncs_since(mark_b, 1) >= 1);
    for (node, mark) in [(&a, mark), (&b, mark_b)] {
        let calls = node.runtime.calls_since(mark);
        let removed = |call: &Call| match call {
            Call::Remove(_) => true,
            Call::Sync { peers, .. } => peers.len() != 1,
            Call::Configure(_) | Call::Inject(..) => false,
        };
        assert!(!calls.iter().any(removed), "{calls:?}");
    }
}

#[test]
fn a_control_plane_that_is_killed_restarted_or_replaced_removes_no_route() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut control = Control::start(first.path(), None);
    let port = Some(control.port);
    let quick = ["--sync-interval", "300ms", "--heartbeat-interval", "200ms"];
    let nodes = [1, 2, 3].map(Node::new);
    let mut agents = Vec::new();
    for (n, node) in (1..).zip(&nodes) {
        node.runtime.state().alive.extend([1, 2, 3].map(subnet));
        let agent = node.agent(&control, &quick);
        agent.until("its subnet", || node.runtime.state().subnet == subnet(n));
        agents.push(agent);
    }
    let all = |others: &str| {
        for (n, (node, agent)) in (1..).zip(nodes.iter().zip(&agents)) {
            let expected: Vec<u8> = (1..=3).filter(|m| *m != n).collect();
            agent.until(others, || node.runtime.routes() == expected);
        }
    };
    all("the others");
    let removed = || {
        let calls = nodes.iter().flat_map(|node| node.runtime.calls_since(0));
        calls.filter(|call| matches!(call, Call::Remove(_))).count()
    };

    control.kill();
    for agent in &agents {
        agent.until_logged("no node list");
    }
    control = Control::start(first.path(), port);
    for agent in &agents {
        agent.until_logged("node lists arrive again");
    }
    all("the others after a restart");
    assert_eq!(removed(), 0);

    control.kill();
    control = Control::start(second.path(), port);
    for (agent, node) in agents.iter().zip(&nodes) {
        // By a heartbeat or by a list, whichever comes first.
        agent.until("another registration", || {
            agent.logged(" registered: registered") == 2
        });
        let mark = node.runtime.calls();
        agent.until("syncs go on", || node.runtime.syncs_since(mark, 2) >= 10);
    }
    // Each gets a subnet again, in whatever order they come, and finds the others.
    let own = |node: &Node| node.runtime.state().subnet.clone();
    for (node, agent) in nodes.iter().zip(&agents) {
        agent.until("the others, none in doubt", || {
            let mut subnets: Vec<_> = nodes.iter().map(own).collect();
            subnets.retain(|subnet| *subnet != own(node));
            subnets.sort();
            let state = node.runtime.state();
            let routed: Vec<_> = state.routes.iter().cloned().collect();
            routed == subnets && state.entries.iter().all(|peer| !peer.suspect)
        });
    }
    drop(control);
}

#[test]
fn an_agent_beats_as_often_as_the_control_plane_tells_and_one_that_beats_too_seldom_is_told_why() {
    let directory = tempfile::tempdir().unwrap();
    // It calls a node down after a second.
    let control = Control::start(directory.path(), None);
    let node = Node::new(1);
    let start = |arguments: &[&str]| {
        let mut command = std::process::Command::new(BINARY);
        command
            .env_clear()
            .env("QUILT_MESH_METRICS_ADDR", "off")
            .args([
                "--control-plane",
                &format!("http://127.0.0.1:{}", control.port),
            ])
            .args(["--quilt-runtime", &node.runtime.url()])
            .args(["--host-ip", &node.address, "--hostname", "alpha"])
            .args(["--log-level", "debug", "--socket", "off", "--state-dir"])
            .arg(node.state())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Agent::spawn(command)
    };
    let seldom = start(&["--heartbeat-interval", "600ms"]);
    seldom.until_logged("a node that is silent for 1s is down here");
    drop(seldom);
    // Each ten seconds, as without a word, would be too seldom by far.
    let agent = start(&[]);
    agent.until("heartbeats", || agent.logged("heartbeat") >= 12);
    assert_eq!(agent.logged("registered"), 1, "{:#?}", agent.log());
}

#[test]
fn what_the_agent_finds_is_shown_by_the_control_plane_until_it_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path(), None);
    let mut node = Node::new(1);
    let quick = ["--heartbeat-interval", "200ms", "--sync-interval", "200ms"];
    let agent = node.agent(&control, &quick);
    let url = format!("http://127.0.0.1:{}/api/traffic", control.port);
    // Whoever makes a client has to have one, also where no TLS is spoken. Fails if another test was first.
    let _another = rustls::crypto::ring::default_provider().install_default();
    let (asking, client) = (server(), reqwest::Client::new());
    let shown = || -> serde_json::Value {
        // Others run beside, which this is not to hold up.
        std::thread::sleep(Duration::from_millis(50));
        let asked = asking.block_on(async { client.get(&url).send().await?.json().await });
        let asked: serde_json::Value = asked.unwrap();
        asked["nodes"][0]["data_plane"].clone()
    };
    let codes = || -> Vec<String> {
        let findings = shown()["findings"].as_array().cloned().unwrap_or_default();
        let code = |it: &serde_json::Value| it["code"].as_str().unwrap().to_owned();
        findings.iter().map(code).collect()
    };
    // It was started with --insecure.
    agent.until("that everybody is let in", || {
        codes() == ["insecure-control-plane"] && shown()["version"] == "0.0.0-fake"
    });
    node.runtime.stop();
    agent.until("that the runtime is away", || {
        codes() == ["runtime-lost", "insecure-control-plane"]
    });
    assert_eq!(shown()["fast_path"], "unknown");
    node.runtime.resume();
    agent.until("that it is back", || {
        codes() == ["insecure-control-plane"] && shown()["version"] == "0.0.0-fake"
    });
}

#[test]
fn an_agent_keeps_one_connection_to_the_control_plane() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path(), None);
    let node = Node::new(1);
    let agent = node.agent(&control, &["--heartbeat-interval", "200ms"]);
    agent.until("heartbeats", || agent.logged("heartbeat") >= 3);
    // Whichever it made to register may still be there for a moment.
    agent.until("one connection", || agent.connections_to(control.port) == 1);
    let beats = agent.logged("heartbeat");
    agent.until("more heartbeats", || {
        assert!(agent.connections_to(control.port) <= 1);
        agent.logged("heartbeat") >= beats + 10
    });
}

#[test]
fn an_agent_that_has_nothing_to_tell_is_kept_up_by_its_questions_alone() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path(), None);
    let mut node = Node::new(1);
    // There is no runtime that would tell anything.
    node.runtime.stop();
    let agent = node.agent(
        &control,
        &["--heartbeat-interval", "300ms", "--sync-interval", "5s"],
    );
    agent.until_logged("registered node_id");
    let counted = "the question counted as the heartbeat";
    let beats = || agent.logged("DEBUG heartbeat: heartbeat");
    // What the agent finds wrong itself is told, and nothing else: that the runtime is away, and that everybody is let in.
    agent.until("ten of them", || agent.logged(counted) >= 10);
    let before = beats();
    assert!(before <= 2, "{:#?}", agent.log());
    agent.until("ten more", || agent.logged(counted) >= 20);
    assert_eq!(beats(), before, "{:#?}", agent.log());
    assert_eq!(agent.logged("registered node_id"), 1, "{:#?}", agent.log());
}
