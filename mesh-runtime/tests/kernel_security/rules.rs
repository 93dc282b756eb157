//! The rules of the packet filter under those who also work on it: firewalls that are reloaded,
//! operators who delete, a host without the program.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use mesh_testbed::{
    Container, Daemon, DaemonOptions, Host, NetNs, Signal, wait_reachable, wait_until,
};

use crate::{
    inside::run,
    pair::{Pair, SOON},
    scene::Scene,
    tables::{TABLES, first_rules, listed, nft, own_rules},
    witness::{Listener, sees},
};

/// The rules are whole again within a second, which each test prints. What is asserted is that they are
/// sooner than the comparison of every five seconds would find it, on however busy a machine.
const WHOLE_AGAIN: Duration = Duration::from_secs(4);

/// Another's firewall, as an operator has it.
const FOREIGN: &str = "table inet foreign {
    set friends { type ipv4_addr; elements = { 198.51.100.1, 198.51.100.2 } }
    chain input {
        type filter hook input priority 0; policy accept;
        ip saddr @friends counter accept
        tcp dport 22 accept
    }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ct state established accept
    }
}";

/// A pair of nodes whose rules are written, and what they are on the first.
struct Written {
    pair: Pair,
    rules: Vec<Vec<String>>,
}

async fn written() -> Written {
    // What is written stays until something changes: with an endpoint for probes, which ends with the runtime, each start
    // changes its elements.
    let options = DaemonOptions::new().args(["--probe-endpoint", "off"]);
    let pair = Pair::start(&options).await;
    pair.wait_fast().await;
    let rules = settled(pair.host_a().netns()).await;
    Written { pair, rules }
}

/// The rules once both tables are there with the peer. They are written as a whole, but listed in several questions,
/// between which they may be written.
pub(crate) async fn settled(netns: &NetNs) -> Vec<Vec<String>> {
    wait_until("the rules", SOON, || async {
        let rules = own_rules(netns).ok_or("a table is missing")?;
        if own_rules(netns).as_ref() != Some(&rules) {
            return Err("they are being written");
        }
        let peer = rules.iter().flatten().any(|word| word == "192.0.2.3");
        peer.then_some(rules).ok_or("the peer is missing")
    })
    .await
    .unwrap()
}

impl Written {
    fn netns(&self) -> &NetNs {
        self.pair.host_a().netns()
    }

    /// Damages the rules, and waits until they are what they were.
    async fn whole_again(&self, damage: &str, how: impl FnOnce(&NetNs)) {
        how(self.netns());
        let damaged = Instant::now();
        self.whole_within(WHOLE_AGAIN, damage).await;
        println!("whole {:?} after {damage}", damaged.elapsed());
    }

    /// Waits until they are what they were.
    async fn whole_within(&self, time: Duration, after: &str) {
        wait_until(&format!("whole rules after {after}"), time, || async {
            let now = own_rules(self.netns());
            (now.as_ref() == Some(&self.rules))
                .then_some(())
                .ok_or(format!(
                    "{:?}",
                    TABLES.map(|table| listed(self.netns(), table))
                ))
        })
        .await
        .unwrap();
    }
}

fn command(words: &'static str) -> impl FnOnce(&NetNs) {
    move |netns| drop(run(netns, "nft", words))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_ruleset_is_whole_again_within_a_second() {
    let node = written().await;
    for _ in 0..3 {
        let flush = command("flush ruleset");
        node.whole_again("flush ruleset", flush).await;
    }
    wait_reachable(node.pair.a.netns(), node.pair.b.address(), SOON)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_table_is_whole_again_within_a_second() {
    let node = written().await;
    let flush = command("flush table inet quilt_mesh");
    node.whole_again("flush table", flush).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_table_is_whole_again_within_a_second() {
    let node = written().await;
    for words in [
        "delete table bridge quilt_mesh",
        "delete table inet quilt_mesh",
    ] {
        node.whole_again(words, command(words)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_rule_is_back_within_a_second() {
    let node = written().await;
    for table in TABLES {
        for (chain, _) in first_rules(node.netns(), table) {
            let damage = format!("the first rule of {table} {chain}");
            node.whole_again(&damage, |netns| {
                // The handles are others after every repair.
                let now = first_rules(netns, table);
                let (_, handle) = now.iter().find(|(name, _)| *name == chain).unwrap();
                let words = format!("delete rule {table} {chain} handle {handle}");
                run(netns, "nft", &words);
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_peer_is_back_within_a_second() {
    let node = written().await;
    let words = "delete element inet quilt_mesh peers { 192.0.2.3 }";
    node.whole_again(words, command(words)).await;
}

/// As many elements as before, of which one is another's.
#[tokio::test(flavor = "multi_thread")]
async fn an_element_that_another_has_replaced_is_back_within_a_second() {
    let node = written().await;
    for (set, ours, anothers) in [
        ("peers", "192.0.2.3", "192.0.2.4"),
        ("subnets", "10.42.2.0", "10.42.9.0"),
    ] {
        let set = format!("element inet quilt_mesh {set}");
        let script = format!("delete {set} {{ {ours} }}\nadd {set} {{ {anothers} }}");
        node.whole_again(&script, |netns| nft(netns, &script)).await;
    }
}

/// A rule that somebody added in our table, e.g. one that accepts everything, is not ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_was_added_to_our_table_is_gone_within_a_second() {
    let node = written().await;
    for table in TABLES {
        let netns = node.netns();
        for (chain, _) in first_rules(netns, table) {
            let words = format!("insert rule {table} {chain} accept");
            node.whole_again(&words, |netns| {
                run(netns, "nft", &words);
            })
            .await;
        }
    }
}

/// A restart of nftables' service: flush and load in one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_packet_filters_service_leaves_the_rules_whole_within_a_second() {
    let node = written().await;
    node.whole_again("a restart of the service", |netns| {
        nft(netns, &format!("flush ruleset\n{FOREIGN}"));
    })
    .await;
    let foreign = listed(node.netns(), "inet foreign");
    assert!(foreign.unwrap().contains("friends"));
}

/// What a reload of firewalld does, which needs a message bus and is therefore imitated: its
/// own table is flushed, deleted and made again, some times in a row.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_firewalld_leaves_the_rules_whole_within_a_second() {
    let node = written().await;
    let table = "table inet firewalld {
        chain filter_FORWARD {
            type filter hook forward priority 10; policy accept;
            ct state established,related accept
            ct status dnat accept
        }
    }";
    nft(node.netns(), table);
    for _ in 0..3 {
        node.whole_again("a reload of firewalld", |netns| {
            run(netns, "nft", "flush table inet firewalld");
            run(netns, "nft", "delete table inet firewalld");
            nft(netns, table);
        })
        .await;
    }
    wait_reachable(node.pair.a.netns(), node.pair.b.address(), SOON)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_table_is_left_alone_by_repairs_and_by_cleanup() {
    let node = written().await;
    let host = node.pair.host_a();
    nft(host.netns(), FOREIGN);
    let foreign = listed(host.netns(), "inet foreign").unwrap();
    for words in [
        "flush table inet quilt_mesh",
        "delete table bridge quilt_mesh",
        "delete element inet quilt_mesh peers { 192.0.2.3 }",
    ] {
        node.whole_again(words, command(words)).await;
        let now = listed(host.netns(), "inet foreign");
        assert_eq!(now.as_deref(), Some(&*foreign), "after {words}");
    }
    host.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    cleanup(host);
    for table in TABLES {
        assert_eq!(listed(host.netns(), table), None, "after --cleanup");
    }
    let now = listed(host.netns(), "inet foreign");
    assert_eq!(now.as_deref(), Some(&*foreign), "after --cleanup");
    // A second time there is nothing to do, and that is no error.
    cleanup(host);
}

pub(crate) fn cleanup(host: &Host) {
    let mut command = host.netns().command(env!("CARGO_BIN_EXE_quilt-runtime"));
    command.arg("--bpffs").arg(host.bpffs_dir());
    command.arg("--state-dir").arg(host.runtime_state_dir());
    let output = command.arg("--cleanup").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_stay_when_the_runtime_is_killed_and_when_it_stops() {
    let node = written().await;
    let host = node.pair.host_a();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        host.stop(Daemon::Runtime, signal, SOON).await.unwrap();
        let now = own_rules(host.netns());
        assert_eq!(now.as_ref(), Some(&node.rules), "after {signal}");
        host.restart(Daemon::Runtime).unwrap();
        host.wait_serving(SOON).await.unwrap();
        node.whole_within(SOON, &format!("the start that follows {signal}"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ruleset_that_was_flushed_while_the_runtime_was_dead_is_whole_after_its_start() {
    let node = written().await;
    let host = node.pair.host_a();
    host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    run(host.netns(), "nft", "flush ruleset");
    host.restart(Daemon::Runtime).unwrap();
    host.wait_serving(SOON).await.unwrap();
    node.whole_within(SOON, "the start").await;
}

/// Outer VXLAN has no place in the connection tracking, whose table would be the mesh's limit.
#[tokio::test(flavor = "multi_thread")]
async fn outer_vxlan_is_not_tracked() {
    for fast_path in ["auto", "off"] {
        let options = DaemonOptions::new().args(["--fast-path", fast_path]);
        let pair = Pair::start(&options).await;
        settled(pair.host_a().netns()).await;
        // Somebody's rules that make the kernel track.
        let track = "table inet tracks {
            chain input { type filter hook input priority 0; ct state new accept; }
            chain output { type filter hook output priority 0; ct state new accept; }
        }";
        nft(pair.host_a().netns(), track);
        // What was sent before the rules were written may have been tracked.
        let before = tracked_outer(pair.host_a().netns());
        for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            let listener = Listener::on(to.netns());
            // Each is a flow of its own, with an outer port of its own.
            for number in 0..8 {
                let payload = format!("flow {number}");
                sees(
                    payload.as_bytes(),
                    &listener,
                    Scene::marker(from.netns(), to.address()),
                );
            }
        }
        let after = tracked_outer(pair.host_a().netns());
        let new: Vec<&String> = after.difference(&before).collect();
        assert!(new.is_empty(), "{fast_path}: {new:?}");
        let rules = listed(pair.host_a().netns(), TABLES[0]).unwrap();
        assert!(rules.contains("notrack"), "{rules}");
    }
}

/// The ports of VXLAN flows that the kernel tracks, where it lists them in /proc.
fn tracked_outer(netns: &NetNs) -> BTreeSet<String> {
    let text = netns.run(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"));
    let text = text.unwrap().unwrap_or_default();
    let outer = text.lines().filter(|line| line.contains(" dport=4789"));
    let words = outer.flat_map(|line| line.split(' '));
    let ports = words.filter(|word| word.starts_with("sport="));
    ports.map(str::to_owned).collect()
}

pub(crate) async fn reaches(from: &Container, to: &Container) {
    wait_reachable(from.netns(), to.address(), SOON)
        .await
        .unwrap();
}
