//! The socket on which the agent tells.

use std::{
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::PathBuf,
};

use nix::sys::signal::Signal;

use super::*;

/// Where an agent with this state directory serves.
fn command(control: &FakeControlPlane, runtime: &FakeRuntime, state: &Path) -> (Agent, PathBuf) {
    let mut command = Agent::command(Path::new(BINARY), control, runtime, state);
    command.args(["--host-ip", HOST_IP]);
    (Agent::spawn(command), state.join("agent.sock"))
}

#[test]
fn an_agent_tells_how_it_fares() {
    let (mut control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    control.add_peer(3);
    agent.until("both peers", || runtime.peers() == [2, 3]);
    let status = agent.status();
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((&*status.hostname, &*status.node_id), ("node1", "own-1"));
    assert_eq!(status.subnet, subnet(1));
    assert_eq!(status.host_address, HOST_IP);
    assert_eq!(status.runtime, runtime.url());
    assert_eq!(status.mesh_id, "");
    let certificate = status.certificate.unwrap();
    assert_eq!((&*certificate.source, certificate.not_after), ("none", 0));
    let list = status.node_list.unwrap();
    assert_eq!(
        (list.nodes, list.revision),
        (3, Some(control.state().feed.revision()))
    );
    let peers = status.peers.unwrap();
    assert_eq!((peers.confirmed, peers.in_doubt, peers.suspect), (2, 0, 0));
    let told = status.control_plane.unwrap();
    assert_eq!(told.urls, [format!("{}/", control.url())]);
    assert!(told.connected && told.used == 0, "{told:?}");
    assert!(told.heard_ms_ago.is_some());
    control.stop();
    let heard = || agent.status().control_plane.unwrap();
    agent.until("that it is away", || !heard().connected);
    let before = heard().heard_ms_ago.unwrap();
    agent.until("that it is longer ago", || {
        heard().heard_ms_ago.unwrap() > before
    });
}

#[test]
fn the_socket_is_for_every_user_and_goes_with_the_agent() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let (mut agent, socket) = command(&control, &runtime, state.path());
    agent.status();
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    assert!(agent.terminate().success());
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_is_left_behind_is_replaced_and_one_that_is_served_is_not() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let (first, socket) = command(&control, &runtime, state.path());
    first.status();
    let inode = || fs::metadata(&socket).unwrap().ino();
    let before = inode();
    let (second, _) = command(&control, &runtime, state.path());
    second.until_logged("another process serves on the socket");
    second.until_logged("code=\"no-agent-socket\"");
    assert_eq!(inode(), before);
    drop(second);
    // As after SIGKILL, which it gets.
    drop(first);
    assert!(socket.exists());
    let (third, _) = command(&control, &runtime, state.path());
    third.status();
    assert_eq!(third.logged("no-agent-socket"), 0, "{:#?}", third.log());
}

#[test]
fn an_agent_that_is_told_off_serves_none() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let mut command = Agent::command(Path::new(BINARY), &control, &runtime, state.path());
    command.args(["--host-ip", HOST_IP, "--socket", "off"]);
    let agent = Agent::spawn(command);
    agent.until("heartbeats", || control.heartbeats() >= 2);
    assert!(!state.path().join("agent.sock").exists() && !Path::new("off").exists());
    let told = control.state().told.clone();
    assert!(told["data_plane"]["findings"].is_null(), "{told}");
}

#[test]
fn who_takes_all_connections_or_talks_nonsense_does_not_keep_the_agent_from_its_work() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let (agent, socket) = command(&control, &runtime, state.path());
    agent.status();
    let mut idle: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    // Those beyond a user's share find their connections closed.
    let mut byte = [0];
    assert_eq!(idle.last_mut().unwrap().read(&mut byte).unwrap_or(0), 0);
    let beats = control.heartbeats();
    agent.until("heartbeats", || control.heartbeats() >= beats + 3);
    drop(idle);
    agent.status();
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100_000]] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // It may be refused before all of it was taken.
        let _refused = stream.write_all(nonsense);
    }
    agent.status();
    assert!(agent.asked().is_ok());
}

#[test]
fn nobody_is_waited_for_when_the_agent_ends() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let state = tempfile::tempdir().unwrap();
    let (mut agent, socket) = command(&control, &runtime, state.path());
    agent.status();
    let _idle = UnixStream::connect(&socket).unwrap();
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
}
