//! The name by which a runtime knows that it is alone: no user without privileges can take it
//! and so keep the node without a runtime.

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram, UnixListener},
};

use mesh_testbed::{DaemonOptions, Host, NetNs, Testbed};

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
    second_is_refused(host);
}
