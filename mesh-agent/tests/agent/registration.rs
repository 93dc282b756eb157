//! Registration, heartbeats, identity, and the end.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use mesh_testbed::copy_program;
use nix::sys::signal::Signal;

use crate::{
    fake_control_plane::{Answer, FakeControlPlane},
    fake_runtime::{Call, FakeRuntime, subnet},
    process::{Agent, BINARY, HOST_IP},
};

#[test]
fn an_agent_registers_configures_the_runtime_and_deregisters_on_sigterm() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let mut command = Agent::command(Path::new(BINARY), &control, &runtime, state.path());
    command.args(["--host-ip", HOST_IP]);
    let mut agent = Agent::spawn(command);
    agent.until("three heartbeats", || control.heartbeats() >= 3);
    agent.until("the subnet", || runtime.state().subnet == subnet(1));

    let request = control.state().registrations[0].clone();
    assert_eq!(request["hostname"], "node1");
    assert_eq!(request["host_ip"], HOST_IP);
    assert!(request["cpu_cores"].as_u64().unwrap() >= 1);
    assert!(request["ram_mb"].as_u64().unwrap() > 0);
    let key = fs::read_to_string(state.path().join("node-key")).unwrap();
    assert_eq!(request["node_key"], key.trim());

    assert!(agent.terminate().success());
    assert_eq!(control.state().deregistered, ["own-1"]);
    assert_eq!(control.registrations(), 1);
}

#[test]
fn an_ending_agent_leaves_the_routes_in_place() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    let mut agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route", || runtime.routes() == [2]);
    agent.signal(Signal::SIGINT);
    assert!(agent.wait().success(), "SIGINT is SIGTERM");
    assert_eq!(control.state().deregistered, ["own-1"]);
    assert_eq!((runtime.routes(), runtime.peers()), (vec![2], vec![2]));
}

#[test]
fn an_agent_told_to_stay_registered_leaves_without_a_word() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let mut agent = Agent::start(&control, &runtime, &["--stay-registered"]);
    agent.until("a heartbeat", || control.heartbeats() >= 1);
    assert!(agent.terminate().success());
    assert_eq!(control.state().deregistered, [""; 0]);
}

#[test]
fn an_agent_told_to_leave_shows_the_key_of_its_node() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let mut agent = Agent::start(&control, &runtime, &["--leave"]);
    agent.until("a heartbeat", || control.heartbeats() >= 1);
    assert!(agent.terminate().success());
    let key = control.state().registrations[0]["node_key"].clone();
    let left = (String::from("own-1"), key.as_str().unwrap().to_owned());
    assert_eq!(control.state().left, [left]);
    assert_eq!(control.state().deregistered, [""; 0]);
}

#[test]
fn an_agent_told_to_leave_without_a_key_deregisters_and_says_why() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let arguments = ["--leave", "--state-dir", "/nonexistent"];
    let mut agent = Agent::start(&control, &runtime, &arguments);
    agent.until("a heartbeat", || control.heartbeats() >= 1);
    assert!(agent.terminate().success());
    assert_eq!(agent.logged("without which it cannot leave"), 1);
    assert_eq!(control.state().deregistered, ["own-1"]);
    assert_eq!(control.state().left, []);
}

#[test]
fn a_heartbeat_404_registers_again() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = Agent::start(&control, &runtime, &["--sync-interval", "1h"]);
    agent.until("a heartbeat", || control.heartbeats() >= 1);
    control.wipe();
    agent.until("a second registration", || control.registrations() == 2);
    let before = control.heartbeats();
    agent.until("heartbeats under the new id", || {
        control.heartbeats() >= before + 3
    });
    assert_eq!(control.registrations(), 2);
}

#[test]
fn an_agent_waits_for_a_control_plane_that_starts_later_and_says_so_once() {
    let (mut control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.stop();
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until_logged("cannot register");
    control.resume();
    agent.until("the subnet", || runtime.state().subnet == subnet(1));
    assert_eq!(agent.logged("cannot register"), 1, "{:#?}", agent.log());
}

#[test]
fn sigterm_ends_an_agent_that_never_registered() {
    let (mut control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.stop();
    let mut agent = Agent::start(&control, &runtime, &[]);
    agent.until_logged("cannot register");
    assert!(agent.terminate().success());
    assert_eq!(runtime.calls(), 0);
}

#[test]
fn sigterm_ends_an_agent_whose_control_plane_and_runtime_hang() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let mut agent = Agent::start(&control, &runtime, &["--request-timeout", "1h"]);
    agent.until("a heartbeat", || control.heartbeats() >= 1);
    control.answer_lists(Answer::Hang);
    runtime.state().hangs = true;
    let (lists, calls) = (control.lists(), runtime.calls());
    agent.until("a hanging list", || control.lists() > lists);
    agent.until("a hanging call", || runtime.calls() > calls);
    assert!(agent.terminate().success());
    assert_eq!(control.state().deregistered, ["own-1"]);
}

#[test]
fn a_refused_registration_is_repeated_and_its_reason_logged_once() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.state().register_answer = Answer::Problem(409, "192.0.2.1 is held by node7");
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until_logged("192.0.2.1 is held by node7");
    control.state().register_answer = Answer::Proper;
    agent.until("the subnet", || runtime.state().subnet == subnet(1));
    assert_eq!(agent.logged("held by node7"), 1, "{:#?}", agent.log());
}

#[test]
fn a_registration_answer_that_is_nonsense_configures_nothing() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    for (answer, logged) in [
        (r#"{"node_id": "x", "subnet": "10.42.1.7/24"}"#, "host bits"),
        (
            r#"{"node_id": "../x", "subnet": "10.42.1.0/24"}"#,
            "is no id",
        ),
        (r#"{"node_id": "x"}"#, "missing field"),
        ("<html>", "not what the contract says"),
    ] {
        control.state().register_answer = Answer::Body(answer.to_owned());
        let agent = Agent::start(&control, &runtime, &[]);
        agent.until_logged(logged);
    }
    assert_eq!(runtime.calls(), 0);
}

#[test]
fn a_restarted_agent_is_the_same_node() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    for lives in 1..=2 {
        let mut command = Agent::command(Path::new(BINARY), &control, &runtime, state.path());
        command.args(["--host-ip", HOST_IP]);
        let mut agent = Agent::spawn(command);
        agent.until("a registration", || control.registrations() == lives);
        agent.until_logged("registered");
        assert!(agent.terminate().success());
    }
    let registrations = control.state().registrations.clone();
    assert!(registrations[0]["node_key"].is_string());
    assert_eq!(registrations[0]["node_key"], registrations[1]["node_key"]);
}

#[test]
fn without_a_state_directory_a_node_is_known_by_its_address() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let missing = ["--state-dir", "/nonexistent/quilt-mesh-agent"];
    let agent = Agent::start(&control, &runtime, &missing);
    agent.until("heartbeats", || control.heartbeats() >= 3);
    assert!(control.state().registrations[0].get("node_key").is_none());
    assert_eq!(agent.logged("no node key"), 1, "{:#?}", agent.log());
}

#[test]
fn the_default_address_is_the_source_towards_the_control_plane() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let agent = Agent::spawn(Agent::command(
        Path::new(BINARY),
        &control,
        &runtime,
        state.path(),
    ));
    agent.until("a registration", || control.registrations() == 1);
    assert_eq!(control.state().registrations[0]["host_ip"], "127.0.0.1");
    assert_eq!(agent.logged("loopback"), 1, "{:#?}", agent.log());
}

#[test]
fn an_agent_without_any_privilege_does_all_of_its_work() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    // Where the checkout lies, an unprivileged user may not get to.
    let public = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let binary = public.path().join("quilt-mesh-agent");
    copy_program(Path::new(BINARY), &binary).unwrap();
    let mut command = Agent::command(&binary, &control, &runtime, public.path());
    command.args(["--host-ip", HOST_IP]);
    Agent::unprivileged(&mut command);
    let mut agent = Agent::spawn(command);
    agent.until("the route", || runtime.routes() == [2]);
    agent.until("heartbeats", || control.heartbeats() >= 3);

    let uids = agent.status_field("Uid");
    assert!(!uids.split_whitespace().any(|uid| uid == "0"), "{uids}");
    assert_eq!(agent.status_field("CapEff"), "0000000000000000");
    assert!(agent.terminate().success());
    assert_eq!(control.state().deregistered, ["own-1"]);
}

#[test]
fn a_wrong_option_ends_the_agent_with_the_rule_it_breaks() {
    for (arguments, rule) in [
        (
            &[
                "--control-plane",
                "http://127.0.0.1:1",
                "--host-ip",
                "0.0.0.0",
            ][..],
            "cannot be a destination",
        ),
        (
            &["--control-plane", "https://127.0.0.1:1"],
            "https:// needs something to know the control plane by",
        ),
        (
            &["--control-plane", "http://127.0.0.1:1", "--join", "qm1.x"],
            "a host joins over TLS",
        ),
        (&["--host-ip", HOST_IP], "--control-plane"),
    ] {
        let mut command = Command::new(BINARY);
        command
            .env_clear()
            .env("QUILT_MESH_METRICS_ADDR", "off")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut agent = Agent::spawn(command);
        assert!(!agent.wait().success());
        assert!(agent.logged(rule) > 0, "{:?}", agent.log());
    }
}

#[test]
fn a_proxy_in_the_environment_is_not_asked() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let mut command = Agent::command(Path::new(BINARY), &control, &runtime, state.path());
    command
        .args(["--host-ip", HOST_IP])
        .env("http_proxy", "http://127.0.0.1:1")
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1");
    let agent = Agent::spawn(command);
    agent.until("the subnet", || {
        runtime.calls_since(0).contains(&Call::Configure(subnet(1)))
    });
}
