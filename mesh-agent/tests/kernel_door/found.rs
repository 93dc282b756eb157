//! Without `--quilt-runtime`: the socket, and loopback where there is none that can be called.

use std::{fs, os::unix::fs::chown};

use mesh_problems::catalog::agent::RUNTIME_BY_LOOPBACK;

use crate::{
    fake_runtime::{Call, FakeRuntime, inject, subnet},
    host::{Host, NOBODY, set_mode},
    process::Agent,
};

/// Everything that a runtime is told has been told, and again at later syncs.
fn served(agent: &Agent, runtime: &FakeRuntime) {
    agent.until("all of it", || {
        runtime.state().subnet == subnet(1) && runtime.routes() == [2]
    });
}

/// From now on only `runtime` is called, also for the reports of a few heartbeats.
fn alone(host: &Host, agent: &Agent, runtime: &FakeRuntime, other: &FakeRuntime) {
    let (beats, mark) = (host.control.heartbeats(), other.calls());
    host.control.add_peer(3);
    agent.until("another peer", || runtime.peers() == [2, 3]);
    agent.until("heartbeats", || host.control.heartbeats() >= beats + 5);
    assert_eq!(other.calls(), mark);
}

#[test]
fn the_runtime_is_called_by_its_socket_and_not_over_loopback() {
    let host = Host::new();
    let (socket, port) = (host.at_socket(), host.at_port(true));
    let agent = host.agent(0, &[]);
    served(&agent, &socket);
    alone(&host, &agent, &socket, &port);
    assert_eq!(port.calls(), 0);
    assert_eq!(
        agent.logged("called by its socket"),
        1,
        "{:#?}",
        agent.log()
    );
    assert_eq!(agent.logged("over loopback"), 0, "{:#?}", agent.log());
}

#[test]
fn a_runtime_that_knows_the_three_calls_alone_is_found_and_left_for_a_socket_that_appears() {
    let host = Host::new();
    let port = host.at_port(false);
    let agent = host.agent(NOBODY, &[]);
    served(&agent, &port);
    let injected = || {
        port.calls_since(0)
            .iter()
            .filter(|call| **call == inject(2))
            .count()
    };
    agent.until("the route, again and again", || injected() >= 3);
    assert_eq!(agent.logged("over loopback"), 1, "{:#?}", agent.log());
    assert_eq!(
        agent.logged(" WARN "),
        1,
        "no fast path: {:#?}",
        agent.log()
    );
    let socket = host.at_socket();
    set_mode(&host.socket(), 0o666);
    served(&agent, &socket);
    alone(&host, &agent, &socket, &port);
    assert_eq!(
        agent.logged("called by its socket"),
        1,
        "{:#?}",
        agent.log()
    );
}

#[test]
fn an_agent_that_may_not_call_the_socket_goes_on_over_loopback_and_says_once_what_to_do() {
    let host = Host::new();
    let (socket, port) = (host.at_socket(), host.at_port(true));
    set_mode(&host.socket(), 0o600);
    let agent = host.agent(NOBODY, &[]);
    served(&agent, &port);
    alone(&host, &agent, &port, &socket);
    assert_eq!(agent.logged("--socket-group"), 1, "{:#?}", agent.log());
    assert_eq!(agent.logged(" WARN "), 1, "{:#?}", agent.log());
    let observed = agent.until_found(&RUNTIME_BY_LOOPBACK);
    assert!(observed.contains("--socket-group"), "{observed}");
    assert_eq!(agent.status().runtime, "http://127.0.0.1:50051");
    // The runtime is started with a group that the agent is of.
    chown(host.socket(), None, Some(NOBODY)).unwrap();
    set_mode(&host.socket(), 0o660);
    agent.until("the socket", || socket.peers() == [2, 3]);
    let mark = port.calls();
    host.control.add_peer(4);
    agent.until("another peer", || socket.peers() == [2, 3, 4]);
    assert_eq!(port.calls(), mark);
    agent.until_over(&RUNTIME_BY_LOOPBACK);
    assert_eq!(agent.status().runtime, "unix:/run/quilt-mesh/runtime.sock");
}

#[test]
fn a_socket_that_nobody_serves_is_as_none_and_a_runtime_that_is_back_is_called_by_it() {
    let host = Host::new();
    let (mut socket, port) = (host.at_socket(), host.at_port(true));
    let agent = host.agent(0, &[]);
    served(&agent, &socket);
    // Its file stays, as after SIGKILL.
    socket.stop();
    served(&agent, &port);
    fs::remove_file(host.socket()).unwrap();
    host.netns.run(|| socket.resume()).unwrap();
    let mark = socket.calls();
    agent.until("the socket", || {
        socket
            .calls_since(mark)
            .contains(&Call::Configure(subnet(1)))
    });
    alone(&host, &agent, &socket, &port);
}

#[test]
fn a_place_that_is_given_is_not_second_guessed() {
    let host = Host::new();
    let port = host.at_port(true);
    let socket = "unix:/run/quilt-mesh/runtime.sock";
    let agent = host.agent(0, &["--quilt-runtime", socket]);
    agent.until_logged("runtime lost");
    let beats = host.control.heartbeats();
    agent.until("heartbeats", || host.control.heartbeats() >= beats + 5);
    assert_eq!(port.calls(), 0);
    drop(agent);
    // Nor the port, where the socket is there.
    let socket = host.at_socket();
    let agent = host.agent(0, &["--quilt-runtime", "http://127.0.0.1:50051"]);
    served(&agent, &port);
    alone(&host, &agent, &port, &socket);
    assert_eq!(socket.calls(), 0);
}

#[test]
fn whoever_serves_the_socket_of_another_user_is_told_nothing_and_nobody_else_is_either() {
    let host = Host::new();
    set_mode(host.run.path(), 0o777);
    let (socket, port) = (host.at_socket_by_nobody(), host.at_port(true));
    set_mode(host.run.path(), 0o711);
    chown(host.socket(), Some(0), Some(0)).unwrap();
    for arguments in [
        &[][..],
        &["--quilt-runtime", "unix:/run/quilt-mesh/runtime.sock"],
    ] {
        let agent = host.agent(0, arguments);
        agent.until_logged("not taken for the runtime");
        let beats = host.control.heartbeats();
        agent.until("heartbeats", || host.control.heartbeats() >= beats + 5);
        assert_eq!((socket.calls(), port.calls()), (0, 0));
    }
    // Its own user's socket is its own affair.
    chown(host.socket(), Some(NOBODY), None).unwrap();
    let agent = host.agent(0, &[]);
    served(&agent, &socket);
}

#[test]
fn whoever_has_the_port_before_the_runtime_is_there_is_told_nothing_unless_it_was_said_to_be_the_runtime()
 {
    let host = Host::new();
    let mut fake = host.at_port_by_nobody();
    let agent = host.agent(0, &[]);
    agent.until_logged("not taken for the runtime");
    assert!(
        agent.log().iter().any(|line| line.contains("user 65534")),
        "{:#?}",
        agent.log()
    );
    let beats = host.control.heartbeats();
    agent.until("heartbeats", || host.control.heartbeats() >= beats + 5);
    assert_eq!(fake.calls(), 0);
    // The runtime is there, and has its socket.
    let socket = host.at_socket();
    served(&agent, &socket);
    alone(&host, &agent, &socket, &fake);
    assert_eq!(fake.calls(), 0);
    drop((agent, socket));
    fs::remove_file(host.socket()).unwrap();
    // One that knows the three calls alone, and has none: once the port is root's, it is called.
    let agent = host.agent(0, &[]);
    agent.until_logged("not taken for the runtime");
    assert_eq!(fake.calls(), 0);
    fake.stop();
    let port = host.at_port(false);
    agent.until("its routes", || port.routes() == [2, 3]);
    drop((agent, port, fake));
    // What was said is done; and an agent's own user is no stranger to it.
    for (user, arguments) in [
        (0, &["--quilt-runtime", "http://127.0.0.1:50051"][..]),
        (NOBODY, &[][..]),
    ] {
        let host = Host::new();
        let port = host.at_port_by_nobody();
        let agent = host.agent(user, arguments);
        served(&agent, &port);
    }
}

/// As of programs that embed a runtime and serve `meshctl` there, and where a mode lets through whom the runtime does not.
#[test]
fn a_socket_that_is_for_others_than_this_agent_is_left_alone_until_it_is_made_anew() {
    for serve in [
        FakeRuntime::at_socket_for_others,
        FakeRuntime::at_socket_of_others,
    ] {
        let host = Host::new();
        let path = host.socket();
        let others = host.netns.run(|| serve(&path)).unwrap();
        let port = host.at_port(true);
        let agent = host.agent(0, &[]);
        served(&agent, &port);
        alone(&host, &agent, &port, &others);
        assert_eq!(others.calls(), 0);
        assert_eq!(agent.logged(" WARN "), 0, "{:#?}", agent.log());
        drop(others);
        fs::remove_file(&path).unwrap();
        let socket = host.at_socket();
        agent.until("the socket", || socket.peers() == [2, 3]);
    }
}
