//! What it costs while nothing happens.

use std::time::Duration;

use mesh_testbed::{Daemon, DaemonOptions, Host};

use crate::{
    pair::{introduce, start_runtimes},
    scene::{PROBES_A, run, wait_probes},
};

/// How often a daemon's threads have waited, and so were woken up.
fn waits(host: &Host) -> u64 {
    let pid = host.pid(Daemon::Runtime).unwrap();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |thread: std::fs::DirEntry| {
        // A thread may have ended by now.
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .unwrap_or_default()
    };
    threads.map(|thread| of_thread(thread.unwrap())).sum()
}

/// Packets that have gone to it and come from it.
fn packets(host: &Host) -> String {
    let shown = run(host.netns(), "cat /proc/net/dev");
    let line = shown.lines().find(|line| line.contains("quilt-probe"));
    line.expect("it is there")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// What the runtimes do is printed for a reader, beside that of one without the endpoint in the same seconds.
#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_happens_nothing_goes_to_it_and_nothing_comes_from_it() {
    let off = DaemonOptions::new().args(["--probe-endpoint", "off"]);
    let testbed = start_runtimes(&DaemonOptions::new(), &off).await;
    introduce(&testbed, 1).await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    wait_probes(a, PROBES_A).await;
    // What led here echoes a while: programs that are attached, the bridge's first multicast, looks at peers.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let watched = Duration::from_secs(30);
    let before = (packets(a), waits(a), waits(b));
    tokio::time::sleep(watched).await;
    let after = (packets(a), waits(a), waits(b));
    assert_eq!(after.0, before.0);
    println!(
        "wake-ups of the runtime in {} s: {} with the endpoint, {} without",
        watched.as_secs(),
        after.1 - before.1,
        after.2 - before.2
    );
}
