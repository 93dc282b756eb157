//! `meshctl` as a person runs it, against a real runtime.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::process::{Command, Output};

use mesh_proto::quilt::{ConfigureNodeSubnetRequest, quilt_runtime_client::QuiltRuntimeClient};
use mesh_testbed::{DaemonOptions, Host, NetNs, Testbed};

/// A host whose runtime knows its subnet.
async fn node() -> Testbed {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let address = host.address().to_string();
    let options = DaemonOptions::new().args(["--host-ip".to_owned(), address]);
    host.start_runtime(&options).await.unwrap();
    let subnet = "10.42.1.0/24".to_owned();
    QuiltRuntimeClient::new(host.runtime_channel().await.unwrap())
        .configure_node_subnet(ConfigureNodeSubnetRequest { subnet })
        .await
        .unwrap();
    testbed
}

fn meshctl(host: &Host, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .env_clear()
        .arg("--socket")
        .arg(host.runtime_socket())
        .args(words.split_whitespace())
        .output()
        .unwrap()
}

/// What it prints, and it must succeed.
fn prints(host: &Host, words: &str) -> String {
    let output = meshctl(host, words);
    assert!(output.status.success(), "{words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complains of, and it must fail.
fn complains(host: &Host, words: &str) -> String {
    let output = meshctl(host, words);
    assert_eq!(output.status.code(), Some(1), "{words}: {output:?}");
    assert!(output.stdout.is_empty(), "{words}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_put_on_the_mesh_shown_and_taken_off() {
    let testbed = node().await;
    let host = &testbed.hosts()[0];
    assert_eq!(
        prints(host, "addresses"),
        "10.42.1.0/24: 0 of 252 addresses leased\n"
    );
    let web = NetNs::new("web").await.unwrap();
    let netns = web.path().display().to_string();
    let attach = format!("attach web --netns {netns} --publish 8080:80 --name shop --label a=b");
    let line = prints(host, &attach);
    assert!(
        line.starts_with("web: 10.42.1.2/24 on eth0 via 10.42.1.1, behind qm")
            && line.ends_with(", published 8080:80/tcp\n"),
        "{line}"
    );
    assert_eq!(prints(host, &attach), line);
    let document = prints(host, &format!("{attach} --json"));
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["address"], "10.42.1.2/24");
    assert_eq!(document["ports"], serde_json::json!(["8080:80/tcp"]));
    let table = prints(host, "addresses");
    let row = table.lines().last().unwrap();
    for words in ["10.42.1.2", "meshctl/quilt/web/eth0", "shop", "8080:80/tcp"] {
        assert!(row.contains(words), "{table}");
    }
    let list = prints(host, "addresses --json");
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["leases"][0]["labels"]["a"], "b");
    assert_eq!(prints(host, "addresses --engine podman").lines().count(), 1);
    let held = complains(host, "release web");
    assert!(held.contains("detach"), "{held}");
    assert_eq!(prints(host, "detach web"), "");
    assert_eq!(prints(host, "detach web"), "");
    assert_eq!(prints(host, "addresses").lines().count(), 1);
}

/// As that of an engine with mounts of its own: for the runtime there is another file by that name.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_found_where_its_caller_sees_it() {
    let testbed = node().await;
    let host = &testbed.hosts()[0];
    let web = NetNs::new("web").await.unwrap();
    let file = host.dir().join("namespace");
    std::fs::write(&file, "").unwrap();
    let script =
        "mount --bind \"$1\" \"$2\" && exec \"$3\" --socket \"$4\" attach web --netns \"$2\"";
    let attached = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([&web.path(), &file])
        .arg(env!("CARGO_BIN_EXE_meshctl"))
        .arg(host.runtime_socket())
        .output()
        .unwrap();
    assert!(attached.status.success(), "{attached:?}");
    let shown = web
        .command("ip")
        .args(["address", "show", "eth0"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("10.42.1.2/24"), "{shown}");
    // Its end does not end the lease, although nobody is there by now who sees the path.
    let list: serde_json::Value = serde_json::from_str(&prints(host, "addresses --json")).unwrap();
    assert_eq!(list["leases"].as_array().unwrap().len(), 1);
    assert_eq!(list["leases"][0]["leaked"], "", "{list}");
    let refused = complains(host, &format!("attach db --netns {}", file.display()));
    assert!(refused.contains("not a namespace"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_on_standard_error_with_what_to_do() {
    let testbed = node().await;
    let host = &testbed.hosts()[0];
    let missing = complains(host, "attach nobody-there");
    assert!(
        missing.starts_with("meshctl: cannot attach nobody-there: ")
            && missing.contains("/run/netns/nobody-there"),
        "{missing}"
    );
    host.kill_all();
    let gone = complains(host, "addresses");
    assert!(
        gone.contains("quilt-runtime is not running: start it"),
        "{gone}"
    );
    std::fs::remove_file(host.runtime_socket()).unwrap();
    let gone = complains(host, "addresses");
    assert!(gone.contains("is quilt-runtime running"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_the_first_line_alone_makes_nothing_fail() {
    let testbed = node().await;
    let host = &testbed.hosts()[0];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .env_clear()
        .arg("--socket")
        .arg(host.runtime_socket())
        .arg("addresses")
        .stdout(writer)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
