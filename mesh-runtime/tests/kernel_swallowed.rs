//! Somebody between the hosts swallows VXLAN: neither host sees it, and both say so, until it passes again. Needs root
//! and nftables.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use mesh_proto::mesh::NodeSettings;
use mesh_testbed::{Daemon, DaemonOptions, Host, NetNs, Signal, wait_reachable, wait_until};

mod pair;
use pair::{Pair, SOON, introduce, peer_of, start_runtimes, sync_peers, sync_with};

/// The longest until it is said: a look that has just begun, one half a minute later, and two more.
const NOTICED: Duration = Duration::from_secs(90);

/// As long as it takes until it would have been said of a peer that is known from the beginning.
const LONG_ENOUGH: Duration = Duration::from_secs(42);

fn kernel_path() -> DaemonOptions {
    DaemonOptions::new().args(["--fast-path", "off"])
}

fn nft(namespace: &NetNs, words: &str) {
    let mut command = namespace.command("nft");
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "nft {words}: {output:?}");
}

/// The switch between the hosts swallows UDP to `port`.
fn swallow(switch: &NetNs, port: u16) {
    for words in [
        "add table bridge hypervisor",
        "add chain bridge hypervisor swallows { type filter hook forward priority 0 ; }",
        &format!("add rule bridge hypervisor swallows udp dport {port} drop"),
    ] {
        nft(switch, words);
    }
}

/// What the host says of the port.
async fn said(host: &Host) -> Result<Option<String>, String> {
    let status = host.status().await.map_err(|error| error.to_string())?;
    let mut problems = status.problems().into_iter();
    Ok(problems.find(|it| it.contains("swallows")))
}

/// Waits until both hosts name the other.
async fn both_say_so(a: &Host, b: &Host, port: u32) {
    for (host, other) in [(a, b), (b, a)] {
        let problem = wait_until("the problem", NOTICED, || async {
            said(host).await?.ok_or("nothing is said".to_owned())
        });
        let problem = problem.await.unwrap();
        for words in [
            &format!("UDP port {port}"),
            &format!("peer {}", other.address()),
            "--vxlan-port",
        ] {
            assert!(problem.contains(words), "no {words:?} in {problem}");
        }
        // There is no other, as that this host itself drops something.
        assert_eq!(host.status().await.unwrap().problems(), [problem]);
    }
}

async fn nobody_says_so_any_more(hosts: [&Host; 2]) {
    for host in hosts {
        wait_until("no problem any more", NOTICED, || async {
            let problems = host.status().await.unwrap().problems();
            problems.is_empty().then_some(()).ok_or(problems.join("; "))
        })
        .await
        .unwrap();
    }
}

/// Nobody says it, for as long as it would take.
async fn nobody_says_so(hosts: &[&Host]) {
    tokio::time::sleep(LONG_ENOUGH).await;
    for host in hosts {
        assert_eq!(said(host).await.unwrap(), None);
    }
}

async fn a_port_that_is_swallowed_is_told_by_both_until_it_passes_again(options: &DaemonOptions) {
    let pair = Pair::start(options).await;
    let (a, b) = (pair.host_a(), pair.host_b());
    swallow(pair.testbed.switch(), 4789);
    both_say_so(a, b, 4789).await;
    nft(pair.testbed.switch(), "delete table bridge hypervisor");
    nobody_says_so_any_more([a, b]).await;
    wait_reachable(pair.a.netns(), pair.b.address(), SOON)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_swallowed_is_told_by_both_where_the_fast_path_carries_traffic() {
    a_port_that_is_swallowed_is_told_by_both_until_it_passes_again(&DaemonOptions::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_swallowed_is_told_by_both_on_the_kernel_path() {
    a_port_that_is_swallowed_is_told_by_both_until_it_passes_again(&kernel_path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_another_port_the_problem_names_that_and_the_one_that_passes_ends_it() {
    let options = DaemonOptions::new();
    let testbed = start_runtimes(&options, &options).await;
    swallow(testbed.switch(), 8472);
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let settings = |vxlan_port| NodeSettings {
        vxlan_port,
        vni: 100,
    };
    for (generation, port) in [(1, 8472), (2, 4789)] {
        for (host, peer, subnet) in [(a, b, "10.42.2.0/24"), (b, a, "10.42.1.0/24")] {
            let peers = vec![peer_of(peer, subnet)];
            let answer = sync_with(host, generation, peers, Some(settings(port))).await;
            assert!(answer.success, "{}", answer.error);
        }
        match port {
            8472 => both_say_so(a, b, port).await,
            _ => nobody_says_so_any_more([a, b]).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_peer_that_is_off_the_network_nobody_says_it() {
    let options = DaemonOptions::new();
    let testbed = start_runtimes(&options, &options).await;
    introduce(&testbed, 1).await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    // Cut off without anybody noticing it: both interfaces stay up.
    testbed.underlay_partition(b).await.unwrap();
    nobody_says_so(&[a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_peers_whose_runtime_is_dead_or_stopped_or_was_never_there_nobody_says_it() {
    let options = DaemonOptions::new();
    let testbed = start_runtimes(&options, &options).await;
    let [a, b, never] = testbed.hosts() else {
        panic!("three hosts are needed");
    };
    let peers = vec![peer_of(b, "10.42.2.0/24"), peer_of(never, "10.42.3.0/24")];
    assert!(sync_peers(a, 1, peers).await.success);
    let peers = vec![peer_of(a, "10.42.1.0/24")];
    assert!(sync_peers(b, 1, peers).await.success);
    b.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    nobody_says_so(&[a]).await;
}

/// It serves the port, and takes nothing from this node until its agent has told it of it.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_peer_that_is_just_starting_nobody_says_it() {
    let options = DaemonOptions::new();
    let testbed = start_runtimes(&options, &options).await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let peers = vec![peer_of(b, "10.42.2.0/24")];
    assert!(sync_peers(a, 1, peers).await.success);
    // Longer than agents take to tell it: they ask every 5 s.
    const UNKNOWN: Duration = Duration::from_secs(25);
    let begun = Instant::now();
    let mut told = false;
    while begun.elapsed() < LONG_ENOUGH {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for host in [a, b] {
            assert_eq!(said(host).await.unwrap(), None, "{:?}", begun.elapsed());
        }
        if begun.elapsed() > UNKNOWN && !std::mem::replace(&mut told, true) {
            let peers = vec![peer_of(a, "10.42.1.0/24")];
            assert!(sync_peers(b, 1, peers).await.success);
        }
    }
    // What it was asked at the port of VXLAN is no attack to it.
    let drops = b.bpftool_dump("drops").unwrap();
    let malformed = drops.lines().filter(|line| line.contains("\"malformed\""));
    assert!(malformed.clone().count() > 0, "{drops}");
    assert!(
        malformed
            .into_iter()
            .all(|line| line.trim() == "\"malformed\": 0,"),
        "{drops}"
    );
}

/// Whoever drops it there says so itself, and names the command; nothing on the way is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drops_it_itself_blames_nobody_else() {
    let pair = Pair::start(&kernel_path()).await;
    let a = pair.host_a();
    for words in [
        "add table inet firewall",
        "add chain inet firewall input { type filter hook input priority 0 ; }",
        "add rule inet firewall input udp dport 4789 drop",
    ] {
        nft(a.netns(), words);
    }
    let own = wait_until("the host's own problem", NOTICED, || async {
        let problems = a.status().await.unwrap().problems();
        match problems.iter().any(|it| it.contains("by VXLAN from other")) {
            true => Ok(problems),
            false => Err(problems.join("; ")),
        }
    });
    assert_eq!(own.await.unwrap().len(), 1);
    nobody_says_so(&[a]).await;
}
