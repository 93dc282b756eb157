//! `meshctl doctor` against real daemons on real kernels: each ailment is planted, and expected to be found alone; a healthy
//! node has nothing. What it prints is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

mod addresses;
mod daemons;
mod filters;
mod limits;
mod many;
mod parts;
mod routes;
mod twins;

use std::{
    fs::{self, Permissions},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use mesh_proto::{
    mesh::{
        AgentStatus, AgentStatusRequest, JoinAgainRequest, JoinAgainResponse, LeaveRequest,
        LeaveResponse, Peer, SyncPeersRequest,
        mesh_agent_server::{MeshAgent, MeshAgentServer},
        mesh_dataplane_client::MeshDataplaneClient,
    },
    quilt::{ConfigureNodeSubnetRequest, quilt_runtime_client::QuiltRuntimeClient},
};
use mesh_testbed::{
    Daemon, DaemonOptions, Host, Signal, Testbed, stepped_clock::SteppedClock, wait_until,
};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

const SOON: Duration = Duration::from_secs(60);

/// Nobody that has a file here.
const STRANGER: &str = "65534";

/// A mesh of two nodes, each with a container.
async fn mesh() -> Testbed {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    testbed
        .control()
        .start(&DaemonOptions::new())
        .await
        .unwrap();
    for host in testbed.hosts() {
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.start_agent(&DaemonOptions::new()).await.unwrap();
    }
    testbed.wait_converged(SOON).await.unwrap();
    for host in testbed.hosts() {
        wait_for(host, &[]).await;
    }
    testbed
}

fn asked<'a>(command: &'a mut Command, host: &Host, words: &str) -> &'a mut Command {
    command
        .arg("--socket")
        .arg(host.runtime_socket())
        .arg("--agent-socket")
        .arg(host.agent_socket())
        .args(words.split_whitespace())
}

fn meshctl(host: &Host, words: &str) -> Output {
    let mut command = host.netns().command(env!("CARGO_BIN_EXE_meshctl"));
    asked(&mut command, host, words).output().unwrap()
}

/// What it prints, and its exit code.
fn shows(host: &Host) -> (String, i32) {
    let output = meshctl(host, "doctor");
    let text = String::from_utf8(output.stdout).unwrap();
    println!(
        "# meshctl doctor\n{text}# echo $?\n{}\n",
        output.status.code().unwrap()
    );
    assert!(output.stderr.is_empty(), "{:?}", output.stderr);
    (text, output.status.code().unwrap())
}

fn document(host: &Host) -> Value {
    let output = meshctl(host, "doctor --json");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Waits until it finds this and nothing else.
async fn wait_for(host: &Host, expected: &[&str]) {
    wait_until(
        &format!("{expected:?} and nothing else"),
        SOON,
        async || {
            let document = document(host);
            let findings = document["findings"].as_array().unwrap();
            let codes: Vec<_> = findings
                .iter()
                .map(|it| it["code"].as_str().unwrap())
                .collect();
            match codes == expected {
                true => Ok(()),
                false => Err(format!("{document:#}")),
            }
        },
    )
    .await
    .unwrap();
}

/// Runs commands in a host's network, one a line.
fn run(host: &Host, commands: &str) {
    for words in commands.lines().map(str::trim).filter(|it| !it.is_empty()) {
        let mut words = words.split_whitespace();
        let mut command = host.netns().command(words.next().unwrap());
        let output = command.args(words.clone()).output().unwrap();
        assert!(output.status.success(), "{commands}: {output:?}");
    }
}

/// Plants an ailment, expects it to be found alone, and with these words, and takes it away again.
async fn ails(host: &Host, plant: &str, code: &str, words: &str, mend: &str) {
    run(host, plant);
    wait_for(host, &[code]).await;
    let (text, exit) = shows(host);
    assert!(text.contains(words), "{words}: {text}");
    let grave = text.starts_with("error");
    assert_eq!(exit, i32::from(grave), "{text}");
    run(host, mend);
    wait_for(host, &[]).await;
}

/// Something that is in nobody's way.
async fn is_harmless(host: &Host, plant: &str, mend: &str) {
    run(host, plant);
    let (text, exit) = shows(host);
    assert!(text.contains("Findings         none"), "{plant}: {text}");
    assert_eq!(exit, 0, "{text}");
    run(host, mend);
}
