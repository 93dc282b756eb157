//! `meshctl check --all`, against real daemons. What it prints is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::Output,
    time::{Duration, Instant},
};

use mesh_testbed::{Daemon, DaemonOptions, Host, Signal, Testbed, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

async fn mesh(hosts: usize) -> Testbed {
    let testbed = Testbed::builder().hosts(hosts).build().await.unwrap();
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
    testbed
}

/// On the control plane's own host, over its admin socket.
fn meshctl(testbed: &Testbed, words: &[&str]) -> Output {
    let mut command = testbed
        .control()
        .netns()
        .command(env!("CARGO_BIN_EXE_meshctl"));
    let socket = testbed.control().dir().join("admin.sock");
    command.env("QUILT_MESH_CONTROL_SOCKET", socket);
    command.args(words).output().unwrap()
}

/// What it prints, its exit code, and how long it took.
fn shows(testbed: &Testbed, words: &[&str]) -> (String, i32, Duration) {
    let begun = Instant::now();
    let output = meshctl(testbed, words);
    let took = begun.elapsed();
    let code = output.status.code().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!(
        "# meshctl {}\n{text}{}# echo $?\n{code}\n({:.2} s)\n",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr),
        took.as_secs_f64()
    );
    (text, code, took)
}

fn document(testbed: &Testbed) -> Value {
    let output = meshctl(testbed, &["check", "--all", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

async fn until_all_pass(testbed: &Testbed) {
    wait_until("ways that all pass", SOON, async || {
        let document = document(testbed);
        match document["result"] == "ok" {
            true => Ok(()),
            false => Err(document.to_string()),
        }
    })
    .await
    .unwrap();
}

fn nft(testbed: &Testbed, words: &str) {
    let mut command = testbed.switch().command("nft");
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "nft {words}: {output:?}");
}

/// From whom to whom.
type Way = (String, String);

/// What does not pass, the codes, the details.
type Trouble = (Vec<String>, Vec<String>, String);

/// The worst that a document says of each way, with the codes, and of each node with an empty name for the other end.
fn ways(document: &Value) -> BTreeMap<Way, Trouble> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut ways: BTreeMap<Way, Trouble> = BTreeMap::new();
    for row in document["rows"].as_array().unwrap() {
        let way = ways
            .entry((text(&row["from"]), text(&row["to"])))
            .or_default();
        if row["result"] != "ok" {
            way.0
                .push(format!("{} {}", text(&row["test"]), text(&row["result"])));
            way.1
                .extend(row["codes"].as_array().unwrap().iter().map(text));
            way.2.push_str(&text(&row["detail"]));
        }
    }
    ways
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_nodes_tell_of_all_ninety_ways_that_they_pass() {
    let testbed = mesh(10).await;
    until_all_pass(&testbed).await;
    // A node makes no two checks within five seconds, and this is to be one that does not wait for that.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (text, code, took) = shows(&testbed, &["check", "--all"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text, "90 of 90 ways pass\n");
    println!(
        "a check of all 90 ways between 10 nodes took {:.2} s",
        took.as_secs_f64()
    );
    let (text, code, _) = shows(&testbed, &["check", "--all", "--verbose"]);
    assert_eq!(code, 0, "{text}");
    let rows = text.lines().filter(|row| row.contains(" ok "));
    assert_eq!(rows.count(), 4 * 90, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_in_trouble_is_named_with_why_and_all_others_pass() {
    let testbed = mesh(6).await;
    until_all_pass(&testbed).await;
    let [one_way, small, no_runtime, silent, fine, also_fine] = testbed.hosts() else {
        panic!("six hosts are needed");
    };
    nft(&testbed, "add table bridge hypervisor");
    nft(
        &testbed,
        "add chain bridge hypervisor swallows { type filter hook forward priority 0 ; }",
    );
    let address = |host: &Host| host.address();
    nft(
        &testbed,
        &format!(
            "add rule bridge hypervisor swallows ip saddr {} udp dport 4789 drop",
            address(one_way)
        ),
    );
    nft(
        &testbed,
        &format!(
            "add rule bridge hypervisor swallows ip daddr {} udp dport 4789 ip length > 1400 drop",
            address(small)
        ),
    );
    no_runtime
        .stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    // What was heard before the fault does not count any more.
    let subnet = one_way.status().await.unwrap().subnet;
    wait_until("nothing of the node that is not heard", SOON, async || {
        let peers = fine.peers().await.map_err(|error| error.to_string())?.peers;
        let age = peers
            .into_iter()
            .find(|it| it.peer.as_ref().is_some_and(|it| it.subnet == subnet))
            .and_then(|it| it.last_packet_age_ms);
        match age.is_none_or(|age| age > 15_000) {
            true => Ok(()),
            false => Err(format!("{age:?}")),
        }
    })
    .await
    .unwrap();
    // As one of an earlier version, it takes no notice.
    silent.kill(Daemon::Agent, Signal::SIGSTOP).unwrap();
    let document = document(&testbed);
    let (text, code, _) = shows(&testbed, &["check", "--all"]);
    assert_eq!(code, 1, "{text}");
    silent.kill(Daemon::Agent, Signal::SIGCONT).unwrap();
    let ways = ways(&document);
    let of = |from: &Host, to: &Host| &ways[&(from.name().to_owned(), to.name().to_owned())];
    let alone = |host: &Host| &ways[&(host.name().to_owned(), String::new())];

    assert!(
        alone(no_runtime).1 == ["check-not-asked"]
            && alone(no_runtime).2.contains("no connection to the runtime"),
        "{ways:#?}"
    );
    assert!(alone(silent).1 == ["check-not-answered"], "{ways:#?}");
    for other in [small, fine, also_fine] {
        for way in [of(one_way, other), of(other, one_way)] {
            assert!(way.1.contains(&"vxlan-not-through".to_owned()), "{ways:#?}");
            let lost = format!(
                "what {} sends does not arrive at {}",
                one_way.name(),
                other.name()
            );
            assert!(way.2.contains(&lost), "{lost} in {way:?}");
        }
    }
    for other in [fine, also_fine] {
        for way in [of(small, other), of(other, small)] {
            assert_eq!(way.0, ["mtu failed"], "{ways:#?}");
            assert_eq!(way.1, ["path-mtu-small"], "{ways:#?}");
        }
        // Its agent is silent, and nothing else.
        assert_eq!(of(other, silent).0, [""; 0], "{ways:#?}");
        // Without a runtime packets go on, and there is no endpoint for probes.
        let way = of(other, no_runtime);
        assert_eq!(way.0, ["containers warning", "mtu warning"], "{ways:#?}");
        assert_eq!(way.1, ["peer-without-probes"], "{ways:#?}");
    }
    for way in [of(fine, also_fine), of(also_fine, fine)] {
        assert_eq!(way.0, [""; 0], "{ways:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_asks_from_anywhere_by_a_token_and_whoever_may_only_read_may_not() {
    let testbed = mesh(2).await;
    let host = &testbed.hosts()[0];
    let control = testbed.control();
    let authorities = control
        .call_without_credentials(async |client| client.authorities().await)
        .await
        .unwrap();
    let pem: Vec<String> = authorities
        .authorities
        .into_iter()
        .map(|authority| authority.certificate)
        .collect();
    let [ca, token] = ["ca.pem", "token"].map(|name| host.dir().join(name));
    fs::write(&ca, pem.join("\n")).unwrap();
    let meshctl = |words: &[&str]| {
        let mut command = host.netns().command(env!("CARGO_BIN_EXE_meshctl"));
        command
            .args(["check", "--all", "--control", &control.url()])
            .arg("--control-ca")
            .arg(&ca)
            .arg("--control-token-file")
            .arg(&token);
        command.args(words).output().unwrap()
    };
    let keep = |text: &str| {
        fs::write(&token, text).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    };
    keep(&control.operator().unwrap());
    wait_until("ways that pass", SOON, async || {
        let output = meshctl(&[]);
        match output.status.code() {
            Some(0) => Ok(()),
            _ => Err(format!("{output:?}")),
        }
    })
    .await
    .unwrap();
    let reader = control
        .told(&["operator", "create", "reader", "--role", "read"])
        .unwrap();
    keep(reader.trim());
    let output = meshctl(&[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    println!("{said}");
    assert!(said.contains("403"), "{said}");
}
