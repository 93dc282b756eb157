//! What `meshctl bugreport` gives away of a node, and what not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use mesh_testbed::{DaemonOptions, Host, Testbed};

const SOON: Duration = Duration::from_secs(60);

/// What people put where it does not belong.
const JOIN_TOKEN: &str = "qm1.f00dfeed.7vq2.s3cretofanodes3cretofanode";
const OPERATORS_TOKEN: &str = "qmo1.7vq2.s3cretofanoperator";
const PASSWORD: &str = "pa55wordofadatabase";
const KEY: &str = "MHcCAQEEIKs3cretkeyofanode";

/// A process that passes for a daemon of ours, with secrets among its arguments. Ends with the value.
struct Planted(Child);

impl Planted {
    fn new() -> Self {
        let mut command = Command::new("sh");
        command.arg0("quilt-mesh-agent").args(["-c", "read line"]);
        let url = format!("--database-url=postgres://mesh:{PASSWORD}@db/mesh");
        let child = command
            .args(["sh", "--join", JOIN_TOKEN, &url])
            .stdin(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn report(host: &Host, file: &Path) -> Output {
    let mut command = host.netns().command(env!("CARGO_BIN_EXE_meshctl"));
    command
        .arg("--socket")
        .arg(host.runtime_socket())
        .arg("--agent-socket")
        .arg(host.agent_socket())
        .args(["bugreport", "--output"])
        .arg(file);
    command.output().unwrap()
}

/// The files of a tar, unpacked by the `tar` of the system.
fn unpacked(file: &Path) -> BTreeMap<String, String> {
    let list = Command::new("tar").arg("-tf").arg(file).output().unwrap();
    assert!(list.status.success(), "{list:?}");
    let names = String::from_utf8(list.stdout).unwrap();
    let content = |name: &str| {
        let mut tar = Command::new("tar");
        let output = tar.arg("-xOf").arg(file).arg(name).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let named = names.lines().map(|name| (name.to_owned(), content(name)));
    named.collect()
}

#[tokio::test]
async fn a_report_has_what_helps_and_says_what_is_in_it_and_holds_no_secret() {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    let control = testbed.control();
    control.start(&DaemonOptions::new()).await.unwrap();
    for host in testbed.hosts() {
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.start_agent(&DaemonOptions::new()).await.unwrap();
    }
    testbed.wait_converged(SOON).await.unwrap();
    let host = &testbed.hosts()[0];
    let _planted = Planted::new();
    // Of somebody who keeps notes in the packet filter, and in the name of an interface.
    let table = format!("add table inet notes {{ comment \"-----BEGIN PRIVATE KEY-----{KEY}\"; }}");
    for (program, arguments) in [
        ("nft", vec![table.as_str()]),
        ("ip", vec!["link", "set", "lo", "alias", OPERATORS_TOKEN]),
    ] {
        let mut command = host.netns().command(program);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("report.tar");
    let output = report(host, &file);
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    println!("{shown}");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let files = unpacked(&file);
    let contents = &files["bugreport/contents.txt"];
    assert!(shown.starts_with(contents.trim_end()), "{contents}");
    for (name, expected) in [
        ("mesh/status.json", "\"subnet\": \"10.42."),
        ("mesh/peers.json", "host2"),
        ("mesh/routes.json", "vxlan100"),
        ("mesh/processes.txt", "quilt-runtime"),
        ("network/links.txt", "vxlan100"),
        ("network/routes.txt", "10.42."),
        ("network/packet-filter.txt", "quilt_mesh"),
        ("host/settings.txt", "ip_forward\n1"),
        ("host/kernel.txt", "Linux"),
    ] {
        let content = &files[&format!("bugreport/{name}")];
        assert!(content.contains(expected), "{name}: {content}");
        assert!(contents.contains(name), "{contents}");
    }
    // Where the secrets were, the rest is.
    for (name, expected) in [
        ("mesh/processes.txt", "--join [removed]"),
        ("mesh/processes.txt", "postgres://[removed]@db/mesh"),
        ("network/packet-filter.txt", "table inet notes"),
        ("network/links.txt", "alias [removed]"),
    ] {
        let content = &files[&format!("bugreport/{name}")];
        assert!(content.contains(expected), "{name}: {content}");
    }
    for secret in [JOIN_TOKEN, OPERATORS_TOKEN, PASSWORD, KEY] {
        for (name, content) in &files {
            assert!(!content.contains(secret), "{secret} in {name}: {content}");
        }
        assert!(!shown.contains(secret), "{shown}");
    }

    // Of what is missing it says why, and what is there stays.
    let again = report(host, &file);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("--output"), "{said}");
}

#[test]
fn a_report_of_a_host_without_daemons_is_one() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("report.tar");
    let nowhere = directory.path().join("nobody.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    let output = command
        .arg("--socket")
        .arg(&nowhere)
        .arg("--agent-socket")
        .arg(&nowhere)
        .args(["--grpc-addr", "127.0.0.1:1", "bugreport", "--output"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let files = unpacked(&file);
    let status = &files["bugreport/mesh/status.json"];
    assert!(status.contains("runtime-down"), "{status}");
}
