//! What the agent finds wrong: each condition is planted, seen on the agent's socket with its code, and gone with its
//! reason.

use std::{fs, path::Path};

use mesh_problems::catalog::agent::{
    ADDRESS_OF_TWO_NODES, CERTIFICATE_NOT_SHOWN, FOREIGN_NODE_LIST, HEARTBEAT_FAILED,
    HELD_OFF_AS_COPY, INSECURE_CONTROL_PLANE, LISTED_ADDRESS_UNUSABLE, LISTED_STATUS_UNKNOWN,
    LISTED_SUBNET_UNUSABLE, LOOPBACK_ADDRESS, NO_AGENT_SOCKET, NO_NODE_KEY, NO_NODE_LIST,
    NODE_ADDRESS_UNKNOWN, NODE_LIST_DIVERGES, NOT_REGISTERED, OWN_ADDRESS_CLAIMED,
    OWN_SUBNET_CLAIMED, REPORT_REFUSED, SUBNET_OF_TWO_NODES, TOKEN_NOT_KEPT,
};

use crate::{
    fake_control_plane::{Answer, FakeControlPlane},
    fake_runtime::{FakeRuntime, subnet},
    process::{Agent, BINARY, HOST_IP},
};

mod runtime;
mod socket;

/// A node that is well.
fn well(control: &FakeControlPlane, runtime: &FakeRuntime, arguments: &[&str]) -> Agent {
    control.add_peer(2);
    let agent = Agent::start(control, runtime, arguments);
    agent.until("all is well", || {
        runtime.peers() == [2] && control.heartbeats() > 0 && agent.findings().is_empty()
    });
    agent
}

#[test]
fn a_control_plane_that_is_away_is_found_by_heartbeats_and_by_questions() {
    let (mut control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    control.stop();
    let observed = agent.until_found(&HEARTBEAT_FAILED);
    assert!(observed.contains("/heartbeat"), "{observed}");
    agent.until_found(&NO_NODE_LIST);
    agent.until_logged("code=\"heartbeat-failed\"");
    agent.until_logged("code=\"no-node-list\"");
    control.resume();
    agent.until_over(&HEARTBEAT_FAILED);
    agent.until_over(&NO_NODE_LIST);
}

#[test]
fn heartbeats_that_fail_are_over_when_a_question_counts_as_one() {
    let (mut control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    // Nothing is told any more, but that.
    runtime.stop();
    agent.until("that it is told", || {
        let told = control.state().told.clone();
        told["data_plane"]["findings"][0]["code"] == "runtime-lost"
    });
    control.stop();
    agent.until_found(&HEARTBEAT_FAILED);
    control.state().tokens = Some(0);
    control.resume();
    agent.until_over(&HEARTBEAT_FAILED);
}

#[test]
fn a_host_that_is_held_off_as_a_copy_is_found_and_told_what_was_answered() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    control.state().held_off = Some("the node alpha is alive");
    let observed = agent.until_found(&HELD_OFF_AS_COPY);
    assert!(
        observed.ends_with(": the node alpha is alive"),
        "{observed}"
    );
    control.state().held_off = None;
    agent.until_over(&HELD_OFF_AS_COPY);
}

#[test]
fn a_report_that_is_refused_is_found_until_one_is_taken() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let quick = ["--heartbeat-interval", "20ms"];
    let agent = well(&control, &runtime, &quick);
    control.state().refuse_carried = Some(413);
    agent.until_found(&REPORT_REFUSED);
    control.state().refuse_carried = None;
    agent.until_over(&REPORT_REFUSED);
}

#[test]
fn a_node_that_is_not_registered_is_found() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.state().register_answer = Answer::Problem(409, "the name is taken");
    let agent = Agent::start(&control, &runtime, &[]);
    let observed = agent.until_found(&NOT_REGISTERED);
    assert!(observed.contains("the name is taken"), "{observed}");
    control.state().register_answer = Answer::Proper;
    agent.until_over(&NOT_REGISTERED);
}

#[test]
fn a_list_of_another_cluster_is_found() {
    let (control, runtime) = (FakeControlPlane::without_feed(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    let others = r#"{"revision": 1, "nodes": []}"#;
    control.answer_lists(Answer::Body(others.to_owned()));
    agent.until_found(&FOREIGN_NODE_LIST);
    control.answer_lists(Answer::Proper);
    agent.until_over(&FOREIGN_NODE_LIST);
}

#[test]
fn changes_that_lead_elsewhere_again_and_again_are_found() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    control.state().feed.diverges = true;
    agent.until_found(&NODE_LIST_DIVERGES);
    control.state().feed.diverges = false;
    agent.until_over(&NODE_LIST_DIVERGES);
}

#[test]
fn listed_nodes_that_are_no_peers_are_found_by_the_rule_they_break() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    for (n, kind, field, value) in [
        (3, &LISTED_SUBNET_UNUSABLE, "subnet", "10.42.3.7/24"),
        (4, &LISTED_ADDRESS_UNUSABLE, "host_ip", "0.0.0.0"),
        (5, &LISTED_STATUS_UNKNOWN, "status", "asleep"),
        (6, &OWN_SUBNET_CLAIMED, "subnet", "10.42.1.128/25"),
        (7, &OWN_ADDRESS_CLAIMED, "host_ip", HOST_IP),
        (8, &SUBNET_OF_TWO_NODES, "subnet", "10.42.2.128/25"),
        (9, &ADDRESS_OF_TWO_NODES, "host_ip", "192.0.2.2"),
    ] {
        control.add_peer(n);
        control.set(n, field, value);
        let observed = agent.until_found(kind);
        assert!(observed.contains(&format!("peer-{n}")), "{observed}");
        agent.until_logged(&format!("code=\"{}\"", kind.code));
        control.forget(n);
        agent.until_over(kind);
    }
    // Several are one finding.
    for n in 10..20 {
        control.add_peer(n);
        control.set(n, "host_ip", "192.0.2.2");
    }
    agent.until("all of them", || {
        let findings = agent.findings();
        let found = findings.get(ADDRESS_OF_TWO_NODES.code);
        found.is_some_and(|it| it.observed.starts_with("10: "))
    });
    assert_eq!(agent.findings().len(), 1);
}

#[test]
fn a_control_plane_that_lets_everybody_in_is_found_and_its_reason_told() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    control.this_replica().insecure = Some("it was started with --insecure");
    let observed = agent.until_found(&INSECURE_CONTROL_PLANE);
    assert_eq!(observed, "it was started with --insecure");
    let told = agent.status().control_plane.unwrap().insecure;
    assert_eq!(told, observed);
    control.this_replica().insecure = None;
    agent.until_over(&INSECURE_CONTROL_PLANE);
    assert_eq!(agent.status().control_plane.unwrap().insecure, "");
}

#[test]
fn a_token_that_cannot_be_kept_is_found_until_it_can() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.state().tokens = Some(0);
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("state");
    fs::create_dir(&directory).unwrap();
    let mut command = Agent::command(Path::new(BINARY), &control, &runtime, &directory);
    let socket = state.path().join("agent.sock");
    command.args(["--host-ip", HOST_IP, "--socket"]).arg(socket);
    let agent = Agent::spawn(command);
    agent.until("a token", || directory.join("node-token").exists());
    let away = state.path().join("away");
    fs::rename(&directory, &away).unwrap();
    agent.until_found(&TOKEN_NOT_KEPT);
    fs::rename(&away, &directory).unwrap();
    agent.until_over(&TOKEN_NOT_KEPT);
}

#[test]
fn what_is_wrong_from_the_start_is_found() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let socket = state.path().join("agent.sock");
    let socket = ["--socket", socket.to_str().unwrap()];
    let missing = ["--state-dir", "/nonexistent/quilt-mesh-agent"];
    let agent = Agent::start(&control, &runtime, &[socket, missing].concat());
    let observed = agent.until_found(&NO_NODE_KEY);
    assert!(observed.contains("does not exist"), "{observed}");
    drop(agent);

    let loopback = ["--host-ip", "127.0.0.1"];
    let agent = Agent::start(&control, &runtime, &loopback);
    assert_eq!(agent.until_found(&LOOPBACK_ADDRESS), "127.0.0.1");
    drop(agent);

    fs::write(state.path().join("node.pem"), "a certificate").unwrap();
    let mut command = Agent::command(Path::new(BINARY), &control, &runtime, state.path());
    command.args(["--host-ip", HOST_IP]);
    let agent = Agent::spawn(command);
    agent.until_found(&CERTIFICATE_NOT_SHOWN);
}

#[test]
fn an_address_that_cannot_be_found_out_is_found_wrong() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    // On loopback no address is certain to be the node's: the control plane's is one of this host's own.
    let unresolved = ["--control-plane", "http://no-such-host.invalid:8080"];
    let mut command = std::process::Command::new(BINARY);
    command = Agent::options_at(command, unresolved[1], &runtime, state.path());
    let agent = Agent::spawn(command);
    let observed = agent.until_found(&NODE_ADDRESS_UNKNOWN);
    assert!(observed.contains("does not resolve"), "{observed}");
    assert_eq!(agent.status().host_address, "");
    drop(control);
}

#[test]
fn an_agent_without_a_socket_says_so_to_the_control_plane_and_goes_on() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("agent.sock");
    let agent = Agent::start(&control, &runtime, &["--socket", below.to_str().unwrap()]);
    agent.until("its subnet", || runtime.state().subnet == subnet(1));
    agent.until("the finding", || {
        let told = control.state().told.clone();
        let finding = &told["data_plane"]["findings"][0];
        finding["code"] == NO_AGENT_SOCKET.code && finding["severity"] == "notice"
    });
    assert_eq!(agent.logged(" WARN "), 0, "{:#?}", agent.log());
}
