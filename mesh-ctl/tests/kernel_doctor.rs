//! `meshctl doctor` against real daemons on real kernels: each ailment is planted, and expected to be found alone; a healthy
//! node has nothing. What it prints is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    process::{Command, Output},
    time::Duration,
};

use mesh_testbed::{Daemon, DaemonOptions, Host, Signal, Testbed, wait_until};
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

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_rules_that_lead_elsewhere_are_found_and_others_are_not() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let subnet = away.status().await.unwrap().subnet;
    let address = away.address();
    shows(home);
    let vpn = "ip link add wg0 type veth peer name wg1
        ip address add 198.51.100.1/24 dev wg0
        ip link set wg1 up
        ip link set wg0 up";
    run(home, vpn);

    // A route in the place of ours, as a VPN brings.
    ails(
        home,
        &format!("ip route replace {subnet} dev wg0 proto static"),
        "foreign-route",
        &format!("ip route delete {subnet}"),
        &format!("ip route delete {subnet} dev wg0"),
    )
    .await;
    let part = subnet.replace("/24", "/25");
    ails(
        home,
        &format!("ip route add {part} dev wg0"),
        "foreign-route-to-part",
        &part,
        &format!("ip route delete {part} dev wg0"),
    )
    .await;
    // A policy rule before our routes.
    ails(
        home,
        "ip route add default dev wg0 table 51820
         ip rule add priority 100 to 10.42.0.0/16 lookup 51820",
        "policy-rule",
        "lookup main",
        "ip rule delete priority 100
         ip route flush table 51820",
    )
    .await;
    // One that takes VXLAN itself.
    ails(
        home,
        &format!(
            "ip route add default dev wg0 table 51820
             ip rule add priority 100 to {address} ipproto udp dport 4789 lookup 51820"
        ),
        "underlay-diverted",
        &format!("VXLAN to {address} leaves over wg0, by a route of table 51820"),
        "ip rule delete priority 100
         ip route flush table 51820",
    )
    .await;
    // The way to the peer's host over the overlay device itself.
    ails(
        home,
        &format!("ip route add {address}/32 dev vxlan100"),
        "underlay-over-overlay",
        &format!("VXLAN to {address} leaves over vxlan100"),
        &format!("ip route delete {address}/32 dev vxlan100"),
    )
    .await;

    // What VPNs and other container networks do without being in the way.
    is_harmless(
        home,
        "ip route add 10.0.0.0/8 dev wg0
         ip route add 10.42.0.0/16 dev wg0
         ip route add default dev wg0 table 52
         ip rule add priority 5270 lookup 52 suppress_prefixlength 32
         ip rule add priority 5280 fwmark 0x80000 lookup 52
         ip rule add priority 5290 from 198.51.100.1 lookup 52",
        "ip rule delete priority 5270
         ip rule delete priority 5280
         ip rule delete priority 5290
         ip route flush table 52
         ip route delete 10.42.0.0/16 dev wg0
         ip route delete 10.0.0.0/8 dev wg0",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_forwarding_and_ipsec_in_the_way_are_found() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let subnet = away.status().await.unwrap().subnet;
    let (own, address) = (home.address(), away.address());
    ails(
        home,
        &format!("ip address add {own}/32 dev vxlan100"),
        "host-address-on-overlay",
        &format!("ip address delete {own}/32 dev vxlan100"),
        &format!("ip address delete {own}/32 dev vxlan100"),
    )
    .await;
    ails(
        home,
        "ip link add other0 type bridge
         ip link set other0 up
         ip address add 10.42.77.1/24 dev other0",
        "foreign-address",
        "10.42.77.1/24",
        "ip link delete other0",
    )
    .await;
    ails(
        home,
        "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
        "forwarding-off",
        "sysctl -w net.ipv4.conf.eth0.forwarding=1",
        "sysctl -qw net.ipv4.conf.eth0.forwarding=1",
    )
    .await;
    // A VPN between the hosts, and one between the containers.
    let policy = |direction: &str, from: &str, to: &str| {
        format!(
            "ip xfrm policy add src {from} dst {to} dir {direction} tmpl src {own} dst {address} proto esp mode tunnel"
        )
    };
    ails(
        home,
        &policy("out", &own.to_string(), &address.to_string()),
        "ipsec-policy",
        &address.to_string(),
        "ip xfrm policy flush",
    )
    .await;
    ails(
        home,
        &policy("out", "10.42.0.0/16", &subnet),
        "ipsec-overlay",
        &subnet,
        "ip xfrm policy flush",
    )
    .await;
    is_harmless(
        home,
        &format!(
            "{}\n{} if_id 7",
            policy("out", &own.to_string(), "198.51.100.0/24"),
            policy("out", "0.0.0.0/0", "0.0.0.0/0")
        ),
        "ip xfrm policy flush",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_do_not_run_are_told_and_who_has_no_rights_is_told_what_was_not_looked_at() {
    let testbed = mesh().await;
    let home = &testbed.hosts()[0];
    let stranger = || {
        let mut command = home.netns().command("setpriv");
        command.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"]);
        asked(command.arg(env!("CARGO_BIN_EXE_meshctl")), home, "doctor")
            .output()
            .unwrap()
    };
    let output = stranger();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("$ meshctl doctor\n{text}");
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("ipsec            not looked at: needs root"),
        "{text}"
    );
    run(home, "sysctl -qw net.ipv4.conf.eth0.forwarding=0");
    assert_eq!(stranger().status.code(), Some(1));
    run(home, "sysctl -qw net.ipv4.conf.eth0.forwarding=1");

    home.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    wait_for(home, &["agent-down"]).await;
    home.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    wait_for(home, &["runtime-down", "agent-down"]).await;
    let (text, exit) = shows(home);
    assert_eq!(exit, 1, "{text}");
}
