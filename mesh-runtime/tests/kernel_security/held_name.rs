//! The name by which a runtime knows that it is alone: no user without privileges can take it
//! and so keep the node without a runtime.

use std::os::{
    fd::{AsRawFd as _, OwnedFd},
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram, UnixListener},
};

use mesh_testbed::{DaemonOptions, Host, NetNs, Testbed};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
    },
};

use crate::inside::as_nobody;

const NAME: &[u8] = b"quilt-mesh-runtime";

/// Takes the name as a user without privileges, in both of the ways that there may be. What it
/// gets, it holds as long as the sockets live.
fn squat(netns: &NetNs) -> (Option<UnixListener>, Option<UnixDatagram>) {
    as_nobody(netns, || {
        let name = SocketAddr::from_abstract_name(NAME).unwrap();
        let stream = UnixListener::bind_addr(&name).ok();
        (stream, UnixDatagram::bind_addr(&name).ok())
    })
}

/// Takes the name, and connects to it itself until nobody else can.
fn squat_full(netns: &NetNs) -> Vec<OwnedFd> {
    let kind = |flags| socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let name = UnixAddr::new_abstract(NAME).unwrap();
    as_nobody(netns, || {
        let listener = kind(SockFlag::SOCK_CLOEXEC);
        bind(listener.as_raw_fd(), &name).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let mut sockets = vec![listener];
        loop {
            let client = kind(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
            match connect(client.as_raw_fd(), &name) {
                Ok(()) => sockets.push(client),
                Err(Errno::EAGAIN) => return sockets,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

fn options() -> DaemonOptions {
    DaemonOptions::new().binary(env!("CARGO_BIN_EXE_quilt-runtime"))
}

/// Another runtime of root in the same namespace, which shares nothing else with the first, is
/// told that it is not alone.
fn second_is_refused(host: &Host) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = host.netns().command("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_quilt-runtime")]);
    command.args(["--grpc-addr", "127.0.0.1:50151", "--bpffs"]);
    command.arg(host.bpffs_dir());
    command.arg("--state-dir").arg(directory.path());
    command.arg("--socket").arg(directory.path().join("socket"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let said = format!("{said}{}", String::from_utf8_lossy(&output.stdout));
    assert_ne!(output.status.code(), Some(124), "it went on: {said}");
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("another runtime"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_took_the_name_does_not_keep_the_runtime_from_starting() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let taken = squat(host.netns());
    assert!(taken.0.is_some() && taken.1.is_some(), "{taken:?}");
    host.start_runtime(&options()).await.unwrap();
}

/// The kernel does not say whose a name is that takes no more connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_took_the_name_and_answers_nobody_does_not_keep_the_runtime_from_starting() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let _taken = squat_full(host.netns());
    host.start_runtime(&options()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_runtime_is_refused() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    host.start_runtime(&options()).await.unwrap();
    second_is_refused(host);
    // What another takes of the name beside the runtime changes nothing.
    let _taken = squat(host.netns());
    second_is_refused(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_runtime_is_refused_also_where_a_user_took_the_name() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let taken = squat(host.netns());
    host.start_runtime(&options()).await.unwrap();
    second_is_refused(host);
    drop(taken);
    second_is_refused(host);
}

/// A user that comes later finds nothing that would keep it from starting again, either.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_takes_the_name_of_a_dead_runtime_does_not_keep_it_from_starting_again() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    host.start_runtime(&options()).await.unwrap();
    second_is_refused(host);
    host.kill_all();
    let _taken = squat(host.netns());
    host.restart(mesh_testbed::Daemon::Runtime).unwrap();
    host.wait_serving(crate::pair::SOON).await.unwrap();
}
