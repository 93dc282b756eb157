//! What `meshctl` shows of a node, against real daemons. What it prints is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
    time::Duration,
};

use mesh_testbed::{
    Daemon, DaemonOptions, Host, Signal, Testbed, UdpFlow, UdpFlowOptions, wait_reachable,
    wait_until,
};
use serde_json::Value;

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
    testbed
}

/// Asks by these words, of the daemons of a host.
fn asked<'a>(command: &'a mut Command, host: &Host, words: &str) -> &'a mut Command {
    command
        .arg("--socket")
        .arg(host.runtime_socket())
        .arg("--agent-socket")
        .arg(host.agent_socket())
        .args(words.split_whitespace())
}

fn meshctl(host: &Host, words: &str) -> Output {
    // In the host's network, where the runtime's TCP port is.
    let mut command = host.netns().command(env!("CARGO_BIN_EXE_meshctl"));
    asked(&mut command, host, words).output().unwrap()
}

/// What it prints, and its exit code.
fn shows(host: &Host, words: &str) -> (String, i32) {
    let output = meshctl(host, words);
    let text = String::from_utf8(output.stdout).unwrap();
    println!("$ meshctl {words}\n{text}");
    assert!(output.stderr.is_empty(), "{words}: {:?}", output.stderr);
    (text, output.status.code().unwrap())
}

fn document(host: &Host, words: &str) -> Value {
    let output = meshctl(host, &format!("{words} --json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn codes(host: &Host) -> Vec<String> {
    let status = document(host, "status");
    let findings = status["findings"].as_array().unwrap().iter();
    findings
        .map(|it| it["code"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_seen_to_be_fine_and_what_is_wrong_is_named_until_it_is_mended() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let container = home.add_container().await.unwrap();
    let subnet = away.status().await.unwrap().subnet;

    // Fine.
    wait_until("a node that is fine", SOON, async || {
        // The programs are loaded a moment after that.
        let state = document(home, "status")["runtime"]["fast_path"]["state"].clone();
        match codes(home).as_slice() {
            [] if state == "active" => Ok(()),
            codes => Err(format!("{codes:?}, fast path {state}")),
        }
    })
    .await
    .unwrap();
    let (text, code) = shows(home, "status --wait");
    assert_eq!(code, 0, "{text}");
    for words in ["1 of 1 reachable", "Findings    none", "Fast path   active"] {
        assert!(text.contains(words), "{text}");
    }
    assert!(
        !text.contains('\u{1b}'),
        "colours where there is no terminal: {text}"
    );
    let (brief, code) = shows(home, "status --brief");
    assert!(brief.starts_with("ok: ") && code == 0, "{brief}");
    let (peers, code) = shows(home, "peers");
    let row = peers.lines().last().unwrap();
    assert!(
        row.contains(&subnet) && row.contains(" up ") && code == 0,
        "{peers}"
    );
    let (routes, code) = shows(home, "routes");
    assert!(routes.contains("in place") && code == 0, "{routes}");
    let (endpoints, code) = shows(home, "endpoints");
    let address = container.address().to_string();
    assert!(endpoints.contains(&address) && code == 0, "{endpoints}");

    // Somebody else's route in the place of ours.
    let ip = |words: &str| {
        let done = home
            .netns()
            .command("ip")
            .args(words.split_whitespace())
            .status();
        assert!(done.unwrap().success(), "ip {words}");
    };
    ip(&format!("route replace blackhole {subnet} proto static"));
    wait_until("a word about the route", SOON, async || {
        match codes(home).iter().any(|code| code == "foreign-route") {
            true => Ok(()),
            false => Err(format!("{:?}", codes(home))),
        }
    })
    .await
    .unwrap();
    let (text, code) = shows(home, "status");
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(&format!("ip route delete {subnet}")),
        "{text}"
    );
    let (routes, code) = shows(home, "routes");
    assert!(routes.contains("somebody else's") && code == 1, "{routes}");
    let (explained, code) = shows(home, "explain foreign-route");
    assert!(explained.contains("breaks") && code == 0, "{explained}");
    ip(&format!("route del blackhole {subnet}"));
    let (_, code) = shows(home, "status --wait");
    assert_eq!(code, 0);

    // No agent, no runtime.
    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let (text, code) = shows(home, "status");
    assert!(text.contains("(agent-down)") && code == 1, "{text}");
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let (text, code) = shows(home, "status");
    assert!(text.contains("(runtime-down)") && code == 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_rights_is_told_what_needs_none_and_of_the_rest_what_it_takes() {
    let testbed = mesh().await;
    let host = &testbed.hosts()[0];
    // The folders of a test are its own; those of the sockets are everybody's.
    for folder in host.agent_socket().ancestors().skip(1) {
        let mode = fs::metadata(folder).unwrap().permissions().mode();
        if mode & 0o001 == 0 {
            fs::set_permissions(folder, Permissions::from_mode(mode | 0o001)).unwrap();
        }
    }
    let stranger = |words: &str| {
        let mut command = host.netns().command("setpriv");
        command.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"]);
        asked(command.arg(env!("CARGO_BIN_EXE_meshctl")), host, words)
            .output()
            .unwrap()
    };
    let status = stranger("status");
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    assert_eq!(stranger("peers").status.code(), Some(0));
    let routes = stranger("routes");
    assert_eq!(routes.status.code(), Some(2), "{routes:?}");
    let said = String::from_utf8(routes.stderr).unwrap();
    assert!(said.contains("--socket-group"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_carried_with_a_peer_is_seen_while_it_is() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let (here, there) = (
        home.add_container().await.unwrap(),
        away.add_container().await.unwrap(),
    );
    wait_reachable(here.netns(), there.address(), SOON)
        .await
        .unwrap();
    let options = UdpFlowOptions {
        rate: 200,
        max_packets: u64::MAX,
        ..UdpFlowOptions::default()
    };
    let flow = UdpFlow::start(here.netns(), there.netns(), there.address(), options);
    let _flow = flow.unwrap();
    wait_until("packets of the flow", SOON, async || {
        let told = document(home, "top --interval 0.5 --count 1");
        let peer = &told["peers"][0];
        let packets = peer["flow"]["tx_packets"].as_f64().unwrap();
        let is_right = peer["hostname"] == "host2" && packets > 10.0 && packets < 1000.0;
        match is_right && peer["flow"]["fast_share"] == 1.0 {
            true => Ok(()),
            false => Err(told.to_string()),
        }
    })
    .await
    .unwrap();
    let (text, code) = shows(home, "top --count 2 --interval 1");
    let tables = text.matches("1 peers: ").count();
    assert!(tables == 2 && code == 0 && text.contains("host2"), "{text}");
    // A terminal's q ends it; there is none here, and so it would go on until somebody closes its output.
    let refused = meshctl(home, "top --interval 0");
    assert_eq!(refused.status.code(), Some(2));
}
