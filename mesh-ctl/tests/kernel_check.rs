//! `meshctl check` and `meshctl peers --probe`, against real daemons. What they print is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{process::Output, time::Duration};

use mesh_testbed::{DaemonOptions, Host, Testbed, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

async fn mesh(hosts: usize) -> Testbed {
    let testbed = Testbed::builder().hosts(hosts).build().await.unwrap();
    let control = testbed.control();
    control.start(&DaemonOptions::new()).await.unwrap();
    for host in testbed.hosts() {
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.start_agent(&DaemonOptions::new()).await.unwrap();
    }
    testbed.wait_converged(SOON).await.unwrap();
    testbed
}

fn meshctl(host: &Host, words: &[&str]) -> Output {
    let mut command = host.netns().command(env!("CARGO_BIN_EXE_meshctl"));
    command
        .arg("--socket")
        .arg(host.runtime_socket())
        .arg("--agent-socket")
        .arg(host.agent_socket());
    command.args(words).output().unwrap()
}

/// What it prints, and its exit code.
fn shows(host: &Host, words: &[&str]) -> (String, i32) {
    let output = meshctl(host, words);
    let code = output.status.code().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!(
        "# meshctl {}\n{text}{}# echo $?\n{code}\n",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    (text, code)
}

fn document(host: &Host, words: &[&str]) -> Value {
    let output = meshctl(host, &[words, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn nft(testbed: &Testbed, words: &str) {
    let mut command = testbed.switch().command("nft");
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "nft {words}: {output:?}");
}

fn chain_on_the_way(testbed: &Testbed) {
    nft(testbed, "add table bridge hypervisor");
    nft(
        testbed,
        "add chain bridge hypervisor swallows { type filter hook forward priority 0 ; }",
    );
}

/// Between two nodes, the one way.
fn swallow(testbed: &Testbed, from: &Host, to: &Host, what: &str) {
    let (from, to) = (from.address(), to.address());
    let rule =
        format!("add rule bridge hypervisor swallows ip saddr {from} ip daddr {to} {what} drop");
    nft(testbed, &rule);
}

async fn until_all_pass(host: &Host) {
    wait_until("ways that all pass", SOON, async || {
        let document = document(host, &["check"]);
        match document["result"] == "ok" {
            true => Ok(()),
            false => Err(document.to_string()),
        }
    })
    .await
    .unwrap();
}

/// What is not as it should be of a document: test, from, to, codes.
fn troubles(document: &Value) -> Vec<(String, String, String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = document["rows"].as_array().unwrap().iter();
    rows.filter(|row| row["result"] != "ok")
        .map(|row| {
            let codes = row["codes"].as_array().unwrap().iter().map(text);
            let [test, from, to] = ["test", "from", "to"].map(|key| text(&row[key]));
            (test, from, to, codes.collect())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_which_peers_it_does_not_reach_and_why_and_that_the_others_are_fine() {
    let testbed = mesh(3).await;
    let [home, near, far] = testbed.hosts() else {
        panic!("three hosts are needed");
    };
    until_all_pass(home).await;
    let (text, code) = shows(home, &["check"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("2 of 2 ways pass\n"), "{text}");
    for test in ["vxlan", "containers", "kernel", "mtu"] {
        let rows = text.lines().filter(|row| row.trim().starts_with(test));
        assert_eq!(rows.count(), 2, "{text}");
    }
    assert!(text.contains("by the fast path"), "{text}");
    let (text, code) = shows(home, &["peers", "--probe"]);
    assert_eq!(code, 0, "{text}");

    chain_on_the_way(&testbed);
    swallow(&testbed, home, far, "udp dport 4789");
    swallow(&testbed, home, near, "udp dport 4789 ip length > 1400");
    let (text, code) = shows(home, &["check"]);
    assert_eq!(code, 1, "{text}");
    let (near, far) = (near.name(), far.name());
    for failed in [
        format!("{near} (path-mtu-small)"),
        format!("{far} (vxlan-not-through)"),
        "0 of 2 ways pass".to_owned(),
    ] {
        assert!(text.contains(&failed), "{failed:?} in {text}");
    }
    let (text, code) = shows(home, &["peers", "--probe"]);
    assert_eq!(code, 1, "{text}");
    let lost = text
        .lines()
        .find(|row| row.trim().starts_with(far))
        .unwrap();
    assert!(
        lost.contains("100 %") && lost.contains("vxlan-not-through"),
        "{text}"
    );
    let document = document(home, &["check"]);
    let codes = |name: &str| -> Vec<String> {
        let of_it = troubles(&document).into_iter();
        of_it
            .filter(|it| it.2 == name)
            .flat_map(|it| it.3)
            .collect()
    };
    assert_eq!(codes(near), ["path-mtu-small"]);
    assert_eq!(codes(far), ["vxlan-not-through"]);

    // Nobody there to ask.
    home.kill_all();
    let (_, code) = shows(home, &["check"]);
    assert_eq!(code, 2);
}
