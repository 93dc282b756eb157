//! The rules of the packet filter under those who also work on it: firewalls that are reloaded,
//! operators who delete, a host without the program.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mesh_proto::mesh::Peer;
use mesh_testbed::{
    Container, Daemon, DaemonOptions, Host, NetNs, Signal, Testbed, wait_reachable, wait_until,
};

use crate::{
    inside::{run, try_run},
    pair::{Pair, SOON, configure, sync_peers},
    tables::{TABLES, first_rules, listed, nft, own_rules},
};

/// How long the node may be without its rules.
const WHOLE_AGAIN: Duration = Duration::from_secs(1);

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
async fn written() -> (Pair, Vec<Vec<String>>) {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let rules = settled(pair.host_a().netns()).await;
    (pair, rules)
}

/// The rules once both tables are there with the peer.
async fn settled(netns: &NetNs) -> Vec<Vec<String>> {
    wait_until("the rules", SOON, || async {
        let rules = own_rules(netns).ok_or("a table is missing")?;
        let peer = rules.iter().flatten().any(|word| word == "192.0.2.3");
        peer.then_some(rules).ok_or("the peer is missing")
    })
    .await
    .unwrap()
}

/// Damages the rules, and waits until they are what they were.
async fn whole_again(pair: &Pair, rules: &[Vec<String>], damage: &str, how: impl FnOnce(&NetNs)) {
    let netns = pair.host_a().netns();
    how(netns);
    let damaged = Instant::now();
    wait_until(
        &format!("whole rules after {damage}"),
        WHOLE_AGAIN,
        || async {
            let now = own_rules(netns);
            (now.as_deref() == Some(rules))
                .then_some(())
                .ok_or(format!("{now:?} instead of {rules:?}"))
        },
    )
    .await
    .unwrap();
    println!("whole {:?} after {damage}", damaged.elapsed());
}

fn command(words: &'static str) -> impl FnOnce(&NetNs) {
    move |netns| drop(run(netns, "nft", words))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_ruleset_is_whole_again_within_a_second() {
    let (pair, rules) = written().await;
    for _ in 0..3 {
        let flush = command("flush ruleset");
        whole_again(&pair, &rules, "flush ruleset", flush).await;
    }
    wait_reachable(pair.a.netns(), pair.b.address(), SOON)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_table_is_whole_again_within_a_second() {
    let (pair, rules) = written().await;
    let flush = command("flush table inet quilt_mesh");
    whole_again(&pair, &rules, "flush table", flush).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_table_is_whole_again_within_a_second() {
    let (pair, rules) = written().await;
    for words in [
        "delete table bridge quilt_mesh",
        "delete table inet quilt_mesh",
    ] {
        whole_again(&pair, &rules, words, command(words)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_rule_is_back_within_a_second() {
    let (pair, rules) = written().await;
    for table in TABLES {
        for (chain, _) in first_rules(pair.host_a().netns(), table) {
            let damage = format!("the first rule of {table} {chain}");
            whole_again(&pair, &rules, &damage, |netns| {
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
    let (pair, rules) = written().await;
    let words = "delete element inet quilt_mesh peers { 192.0.2.3 }";
    whole_again(&pair, &rules, words, command(words)).await;
}

/// A rule that somebody added in our table, e.g. one that accepts everything, is not ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_was_added_to_our_table_is_gone_within_a_second() {
    let (pair, rules) = written().await;
    for table in TABLES {
        let netns = pair.host_a().netns();
        for (chain, _) in first_rules(netns, table) {
            let words = format!("insert rule {table} {chain} accept");
            whole_again(&pair, &rules, &words, |netns| {
                run(netns, "nft", &words);
            })
            .await;
        }
    }
}

/// A restart of nftables' service: flush and load in one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_packet_filters_service_leaves_the_rules_whole_within_a_second() {
    let (pair, rules) = written().await;
    whole_again(&pair, &rules, "a restart of the service", |netns| {
        nft(netns, &format!("flush ruleset\n{FOREIGN}"));
    })
    .await;
    let foreign = listed(pair.host_a().netns(), "inet foreign");
    assert!(foreign.unwrap().contains("friends"));
}

/// What a reload of firewalld does, which needs a message bus and is therefore imitated: its
/// own table is flushed, deleted and made again, some times in a row.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_firewalld_leaves_the_rules_whole_within_a_second() {
    let (pair, rules) = written().await;
    let table = "table inet firewalld {
        chain filter_FORWARD {
            type filter hook forward priority 10; policy accept;
            ct state established,related accept
            ct status dnat accept
        }
    }";
    nft(pair.host_a().netns(), table);
    for _ in 0..3 {
        whole_again(&pair, &rules, "a reload of firewalld", |netns| {
            run(netns, "nft", "flush table inet firewalld");
            run(netns, "nft", "delete table inet firewalld");
            nft(netns, table);
        })
        .await;
    }
    wait_reachable(pair.a.netns(), pair.b.address(), SOON)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_table_is_left_alone_by_repairs_and_by_cleanup() {
    let (pair, rules) = written().await;
    let host = pair.host_a();
    nft(host.netns(), FOREIGN);
    let foreign = listed(host.netns(), "inet foreign").unwrap();
    for words in [
        "flush table inet quilt_mesh",
        "delete table bridge quilt_mesh",
        "delete element inet quilt_mesh peers { 192.0.2.3 }",
    ] {
        whole_again(&pair, &rules, words, command(words)).await;
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

fn cleanup(host: &Host) {
    let mut command = host.netns().command(env!("CARGO_BIN_EXE_quilt-runtime"));
    command.arg("--bpffs").arg(host.bpffs_dir());
    command.arg("--state-dir").arg(host.runtime_state_dir());
    let output = command.arg("--cleanup").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_stay_when_the_runtime_is_killed_and_when_it_stops() {
    let (pair, rules) = written().await;
    let host = pair.host_a();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        host.stop(Daemon::Runtime, signal, SOON).await.unwrap();
        let now = own_rules(host.netns());
        assert_eq!(now.as_ref(), Some(&rules), "after {signal}");
        host.restart(Daemon::Runtime).unwrap();
        host.wait_serving(SOON).await.unwrap();
        let now = settled(host.netns()).await;
        assert_eq!(now, rules, "after the start that follows {signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ruleset_that_was_flushed_while_the_runtime_was_dead_is_whole_after_its_start() {
    let (pair, rules) = written().await;
    let host = pair.host_a();
    host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    run(host.netns(), "nft", "flush ruleset");
    host.restart(Daemon::Runtime).unwrap();
    host.wait_serving(SOON).await.unwrap();
    assert_eq!(settled(host.netns()).await, rules);
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
        for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            reaches(from, to).await;
        }
        let tracked = pair
            .host_a()
            .netns()
            .run(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"))
            .unwrap();
        let tracked = match tracked {
            Ok(text) => text,
            // A kernel without the listing in /proc: the rule has to do.
            Err(_) => listed(pair.host_a().netns(), TABLES[0])
                .filter(|text| !text.contains("notrack"))
                .map_or(String::new(), |_| "dport=4789".to_owned()),
        };
        assert!(!tracked.contains("dport=4789"), "{fast_path}: {tracked}");
    }
}

async fn reaches(from: &Container, to: &Container) {
    wait_reachable(from.netns(), to.address(), SOON)
        .await
        .unwrap();
}

/// A directory for PATH, removed with the value.
struct Programs(tempfile::TempDir);

impl Programs {
    fn none() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With an `nft` that writes down when it runs, and then is the true one.
    fn logged() -> Self {
        let programs = Self::none();
        let script = format!(
            "#!/bin/sh\ndate +%s%N >> {}\nPATH=/usr/sbin:/sbin:/usr/bin:/bin exec nft \"$@\"\n",
            programs.log().display()
        );
        let wrapper = programs.path().join("nft");
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        for program in ["sh", "date"] {
            symlink(
                Path::new("/bin").join(program),
                programs.path().join(program),
            )
            .unwrap();
        }
        programs
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn log(&self) -> PathBuf {
        self.path().join("runs")
    }

    /// When `nft` was run, in nanoseconds.
    fn runs(&self) -> Vec<u128> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_the_nft_program_works_and_says_so() {
    let programs = Programs::none();
    let options = DaemonOptions::new().env("PATH", programs.path());
    let pair = Pair::start(&options).await;
    pair.wait_fast().await;
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        reaches(from, to).await;
    }
    wait_until("a problem that names nftables", SOON, || async {
        let status = pair.host_a().status().await;
        let problems = status.map_err(|error| error.to_string())?.problems;
        let named = problems.iter().filter(|it| it.contains("nftables"));
        match named.count() {
            1 => Ok(()),
            _ => Err(format!("{problems:?}")),
        }
    })
    .await
    .unwrap();
    let shown = try_run(pair.host_a().netns(), "nft", "list ruleset");
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_join_in_a_burst_are_written_with_at_most_one_run_a_second() {
    const PEERS: u8 = 60;
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let programs = Programs::logged();
    let options = DaemonOptions::new()
        .env("PATH", programs.path())
        .binary(env!("CARGO_BIN_EXE_quilt-runtime"));
    host.start_runtime(&options).await.unwrap();
    configure(host, "10.42.1.0/24").await;
    let peers: Vec<Peer> = (1..=PEERS)
        .map(|number| Peer {
            subnet: format!("10.42.{}.0/24", number + 1),
            host_address: format!("192.0.2.{}", number + 100),
            hostname: String::new(),
            suspect: false,
        })
        .collect();
    let before = programs.runs().len();
    let started = Instant::now();
    for joined in 1..=peers.len() {
        let generation = u64::try_from(joined).unwrap();
        let answer = sync_peers(host, generation, peers[..joined].to_vec()).await;
        assert!(answer.success, "{}", answer.error);
        // As nodes join: some in every tenth of a second.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = peers.last().unwrap().host_address.clone();
    wait_until("the last peer in the set", SOON, || async {
        let rules = own_rules(host.netns()).unwrap_or_default();
        let there = |peer: &Peer| rules.iter().flatten().any(|it| *it == peer.host_address);
        let missing = peers.iter().filter(|peer| !there(peer)).count();
        match missing {
            0 => Ok(()),
            _ => Err(format!("{missing} are missing up to {last}")),
        }
    })
    .await
    .unwrap();
    let took = started.elapsed();
    let runs = programs.runs();
    let during = runs.len() - before;
    // One that was due when the burst began, and one that was begun when it ended.
    let allowed = usize::try_from(took.as_secs()).unwrap() + 2;
    println!("{during} runs of nft in {took:?} for {PEERS} peers");
    assert!(during >= 1, "nft was run by another way than PATH");
    assert!(during <= allowed, "{during} runs in {took:?}: {runs:?}");
}

/// What nobody changes is not written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_node_does_not_run_nft() {
    let programs = Programs::logged();
    let options = DaemonOptions::new().env("PATH", programs.path());
    let pair = Pair::start(&options).await;
    pair.wait_fast().await;
    settled(pair.host_a().netns()).await;
    // Five seconds in a row, once what the start brought about is over.
    wait_until("five seconds without a run of nft", SOON, || async {
        let runs = programs.runs();
        let last = Duration::from_nanos(u64::try_from(*runs.last().unwrap()).unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let quiet = now.saturating_sub(last);
        match quiet >= Duration::from_secs(5) {
            true => Ok(()),
            false => Err(format!("{} runs, the last {quiet:?} ago", runs.len())),
        }
    })
    .await
    .unwrap();
}
