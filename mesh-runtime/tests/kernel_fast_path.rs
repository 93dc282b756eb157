//! The fast path on the real kernel: who carried what, to the packet, whatever happens to the
//! daemons. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use mesh_proto::mesh::fast_path_status::State;
use mesh_testbed::{
    Daemon, DaemonOptions, Host, PingOptions, Signal, UdpFlow, UdpFlowOptions, ping, transfer,
};

mod pair;
use pair::{Pair, counters};

async fn fast_path_state(host: &Host) -> State {
    host.status().await.unwrap().fast_path.unwrap().state()
}

async fn wait_active(host: &Host) {
    mesh_testbed::wait_until("an active fast path", pair::SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match status.fast_path.unwrap_or_default().state() {
            State::Active => Ok(()),
            state => Err(format!("{state:?}")),
        }
    })
    .await
    .unwrap();
}

/// Runs the flow, the ping and the transfer that each way of attaching has to carry.
async fn carries_everything_on_the_fast_path(attach: &str) {
    let pair = Pair::start(&DaemonOptions::new().args(["--attach", attach])).await;
    pair.wait_fast().await;
    let status = pair.host_a().status().await.unwrap();
    let fast_path = status.fast_path.unwrap();
    assert_eq!(fast_path.state(), State::Active, "{}", fast_path.reason);
    assert_eq!(fast_path.attach_mode, attach);

    let (a, b) = (pair.host_a(), pair.host_b());
    let before = (counters(a).await, counters(b).await);
    let copied = transfer(
        pair.a.netns(),
        pair.b.netns(),
        pair.b.address(),
        20_000_000,
        Duration::from_secs(30),
    )
    .await
    .unwrap();
    assert!(copied.is_intact());
    let after = (counters(a).await, counters(b).await);

    let kernel = |status: &mesh_proto::mesh::PeerStatus| status.kernel_path.unwrap_or_default();
    assert_eq!(kernel(&after.0), kernel(&before.0));
    assert_eq!(kernel(&after.1), kernel(&before.1));
    let fast = |status: &mesh_proto::mesh::PeerStatus| status.fast_path.unwrap_or_default();
    let sent = fast(&after.0).tx_packets - fast(&before.0).tx_packets;
    let received = fast(&after.1).rx_packets - fast(&before.1).rx_packets;
    assert_eq!(sent, received, "what one side sent the other received");
    let bytes = fast(&after.1).rx_bytes - fast(&before.1).rx_bytes;
    assert!(bytes > 20_000_000, "{bytes} bytes for 20 MB of payload");
}

#[tokio::test(flavor = "multi_thread")]
async fn tcx_carries_everything_and_both_sides_count_the_same_packets() {
    carries_everything_on_the_fast_path("tcx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clsact_carries_everything_and_both_sides_count_the_same_packets() {
    carries_everything_on_the_fast_path("clsact").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_is_counted_to_the_packet_on_both_sides() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let before = (
        counters(pair.host_a()).await.fast_path.unwrap_or_default(),
        counters(pair.host_b()).await.fast_path.unwrap_or_default(),
    );
    let options = UdpFlowOptions {
        rate: 20_000,
        max_packets: 5_000,
        ..UdpFlowOptions::default()
    };
    let flow = UdpFlow::start(pair.a.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    mesh_testbed::wait_until("the end of the flow", pair::SOON, || async {
        flow.is_finished().then_some(()).ok_or("it runs")
    })
    .await
    .unwrap();
    let report = flow.stop().await.unwrap();
    assert_eq!((report.sent, report.lost()), (5_000, 0));

    let after = (
        counters(pair.host_a()).await.fast_path.unwrap_or_default(),
        counters(pair.host_b()).await.fast_path.unwrap_or_default(),
    );
    assert_eq!(after.0.tx_packets - before.0.tx_packets, 5_000);
    assert_eq!(after.1.rx_packets - before.1.rx_packets, 5_000);
    // 64 bytes of payload, 8 of UDP, 20 of IPv4.
    assert_eq!(after.0.tx_bytes - before.0.tx_bytes, 5_000 * 92);
    assert_eq!(after.1.rx_bytes - before.1.rx_bytes, 5_000 * 92);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_fast_path_and_one_with_it_understand_each_other() {
    let without = DaemonOptions::new().args(["--fast-path", "off"]);
    let pair = Pair::start_mixed(&DaemonOptions::new(), &without).await;
    wait_active(pair.host_a()).await;
    assert_eq!(fast_path_state(pair.host_b()).await, State::Off);
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        let report = ping(from.netns(), to.address(), PingOptions::default())
            .await
            .unwrap();
        assert!(report.is_complete(), "{report:?}");
    }
    let copied = transfer(
        pair.b.netns(),
        pair.a.netns(),
        pair.a.address(),
        5_000_000,
        Duration::from_secs(30),
    )
    .await
    .unwrap();
    assert!(copied.is_intact());
}

/// Adds a container while nobody is there to attach a program to its port, and has it send.
async fn a_port_without_a_program_sends_on_the_fast_path(attach: &str) {
    const PACKETS: u64 = 1_000;
    let pair = Pair::start(&DaemonOptions::new().args(["--attach", attach])).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    let before = counters(host).await;
    host.stop(Daemon::Runtime, Signal::SIGKILL, pair::SOON)
        .await
        .unwrap();
    let late = host.add_container().await.unwrap();
    let options = UdpFlowOptions {
        max_packets: PACKETS,
        ..UdpFlowOptions::default()
    };
    let flow = UdpFlow::start(late.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    mesh_testbed::wait_until("the end of the flow", pair::SOON, || async {
        flow.is_finished().then_some(()).ok_or("it runs")
    })
    .await
    .unwrap();
    let report = flow.stop().await.unwrap();
    assert_eq!((report.sent, report.lost()), (PACKETS, 0));

    host.restart(Daemon::Runtime).unwrap();
    host.wait_serving(pair::SOON).await.unwrap();
    wait_active(host).await;
    let after = counters(host).await;
    let tx = |status: &mesh_proto::mesh::PeerStatus| {
        let fast = status.fast_path.unwrap_or_default().tx_packets;
        (fast, status.kernel_path.unwrap_or_default().tx_packets)
    };
    assert_eq!(tx(&after), (tx(&before).0 + PACKETS, tx(&before).1));
    // Its own program comes once there is somebody to attach it.
    pair.wait_endpoint(host, &late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcx_has_the_fast_path_for_a_port_that_appears_while_the_runtime_is_away() {
    a_port_without_a_program_sends_on_the_fast_path("tcx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clsact_has_the_fast_path_for_a_port_that_appears_while_the_runtime_is_away() {
    a_port_without_a_program_sends_on_the_fast_path("clsact").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runtime_and_its_successor_lose_no_packet() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let options = UdpFlowOptions {
        rate: 5_000,
        ..UdpFlowOptions::default()
    };
    let flow = UdpFlow::start(pair.a.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    for host in [pair.host_a(), pair.host_b()] {
        host.stop(Daemon::Runtime, Signal::SIGKILL, pair::SOON)
            .await
            .unwrap();
        host.restart(Daemon::Runtime).unwrap();
        host.wait_serving(pair::SOON).await.unwrap();
        wait_active(host).await;
    }
    let report = flow.stop().await.unwrap();
    assert!(report.sent > 1_000, "{report:?}");
    assert_eq!(report.lost(), 0, "{report:?}");
    // The counters outlived both daemons.
    let counted = counters(pair.host_a()).await.fast_path.unwrap_or_default();
    assert!(counted.tx_packets >= report.sent, "{counted:?} {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bpftool_shows_the_maps_with_the_names_of_their_fields() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let dump = pair.host_a().bpftool_dump("peers").unwrap();
    for field in [
        "subnet",
        "address",
        "transport",
        "flags",
        "mtu",
        "vni",
        "counters",
        "mac",
    ] {
        assert!(dump.contains(&format!("\"{field}\"")), "{field} in {dump}");
    }
    let dump = pair.host_a().bpftool_dump("drops").unwrap();
    assert!(dump.contains("\"unknown_vtep\""), "{dump}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_path_of_one_node_sends_the_fast_path_of_the_other_takes() {
    let without = DaemonOptions::new().args(["--fast-path", "off"]);
    let pair = Pair::start_mixed(&DaemonOptions::new(), &without).await;
    wait_active(pair.host_a()).await;
    pair.wait_endpoint(pair.host_a(), &pair.a).await;
    let before = counters(pair.host_a()).await;
    let report = ping(pair.b.netns(), pair.a.address(), PingOptions::default())
        .await
        .unwrap();
    let after = counters(pair.host_a()).await;
    let received = |status: &mesh_proto::mesh::PeerStatus| {
        (
            status.fast_path.unwrap_or_default().rx_packets,
            status.kernel_path.unwrap_or_default().rx_packets,
        )
    };
    let (before, after) = (received(&before), received(&after));
    assert_eq!(after.0 - before.0, report.received() as u64);
    assert_eq!(after.1, before.1);
}

/// Strict reverse path filtering drops what comes in over another interface than the way back
/// to its source leads over. On neither path that is so, and the runtime leaves it alone.
async fn works_under_strict_reverse_path_filtering(options: DaemonOptions) {
    let pair = Pair::start(&options).await;
    for host in [pair.host_a(), pair.host_b()] {
        for interface in ["all", "default", "eth0", "quilt0", "vxlan100"] {
            let key = format!("net/ipv4/conf/{interface}/rp_filter");
            host.netns().sysctl(&key, "1").unwrap();
        }
    }
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        let report = ping(from.netns(), to.address(), PingOptions::default())
            .await
            .unwrap();
        assert!(report.is_complete(), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_reverse_path_filtering_stops_nothing_on_the_fast_path() {
    works_under_strict_reverse_path_filtering(DaemonOptions::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_reverse_path_filtering_stops_nothing_on_the_kernel_path() {
    let without = DaemonOptions::new().args(["--fast-path", "off"]);
    works_under_strict_reverse_path_filtering(without).await;
}

/// Makes a host's pins those of a build whose layout has another version.
fn call_version(host: &Host, version: &str) {
    let pins = host.bpffs_dir().join("quilt-mesh");
    let entries: Vec<_> = fs::read_dir(&pins)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    for link in entries.iter().filter(|path| path.is_symlink()) {
        let map = link.file_name().unwrap();
        fs::remove_file(link).unwrap();
        symlink(Path::new(version).join(map), link).unwrap();
    }
    fs::rename(pins.join(OWN), pins.join(version)).unwrap();
}

/// Directory of this build's maps.
const OWN: &str = match mesh_layout::LAYOUT_VERSION {
    1 => "v1",
    2 => "v2",
    3 => "v3",
    _ => panic!("name the directory of this layout"),
};

/// Puts a map whose values are `value_len` bytes long in the place of a host's peer counters,
/// with the number of packets sent to its first peer.
fn shrink_counters(host: &Host, pin: &Path, value_len: usize, tx_packets: u64) {
    fs::remove_file(pin).unwrap();
    let bpftool = |words: String| {
        let mut command = host.netns().command("bpftool");
        let output = command.args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let path = pin.display();
    bpftool(format!(
        "map create {path} type percpu_array key 4 value {value_len} entries 256 name peer_stats"
    ));
    let bytes: Vec<String> = tx_packets.to_ne_bytes().map(|it| it.to_string()).into();
    let rest = vec!["0"; value_len - 8].join(" ");
    // bpftool gives every CPU the same value.
    bpftool(format!(
        "map update pinned {path} key 0 0 0 0 value {} {rest}",
        bytes.join(" ")
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_another_layout_and_a_downgrade_lose_no_packet_and_no_count() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    let options = UdpFlowOptions {
        rate: 5_000,
        ..UdpFlowOptions::default()
    };
    let before = counters(host).await.fast_path.unwrap_or_default();
    let flow = UdpFlow::start(pair.a.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    for other in ["v0", "v900"] {
        host.stop(Daemon::Runtime, Signal::SIGKILL, pair::SOON)
            .await
            .unwrap();
        call_version(host, other);
        host.restart(Daemon::Runtime).unwrap();
        host.wait_serving(pair::SOON).await.unwrap();
        wait_active(host).await;
        let pins = host.bpffs_dir().join("quilt-mesh");
        assert!(
            !pins.join(other).exists(),
            "the other build's maps are gone"
        );
        assert!(pins.join(OWN).join("peers").exists());
        assert!(pins.join("peers").exists(), "and the symlinks lead to ours");
    }
    let report = flow.stop().await.unwrap();
    assert!(report.sent > 1_000, "{report:?}");
    assert_eq!(report.lost(), 0, "{report:?}");
    let after = counters(host).await.fast_path.unwrap_or_default();
    assert_eq!(after.tx_packets - before.tx_packets, report.sent);
}

/// The binary of an earlier release, of another layout, that upgrades begin from and downgrades lead to.
const PREVIOUS: &str = "QUILT_MESH_PREVIOUS_RUNTIME";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes the quilt-runtime of a release with maps of layout 2, which QUILT_MESH_PREVIOUS_RUNTIME names"]
async fn an_upgrade_from_an_earlier_release_and_back_loses_no_packet_and_no_count() {
    let previous = std::env::var_os(PREVIOUS).unwrap();
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    let (ours, theirs) = (
        DaemonOptions::new().binary(env!("CARGO_BIN_EXE_quilt-runtime")),
        DaemonOptions::new().binary(previous),
    );
    let options = UdpFlowOptions {
        rate: 5_000,
        ..UdpFlowOptions::default()
    };
    let before = counters(host).await.fast_path.unwrap_or_default();
    let flow = UdpFlow::start(pair.a.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    for (options, other) in [(&theirs, OWN), (&ours, "v2"), (&theirs, OWN), (&ours, "v2")] {
        host.stop(Daemon::Runtime, Signal::SIGKILL, pair::SOON)
            .await
            .unwrap();
        host.spawn(Daemon::Runtime, options).unwrap();
        host.wait_serving(pair::SOON).await.unwrap();
        wait_active(host).await;
        let pins = host.bpffs_dir().join("quilt-mesh");
        assert!(!pins.join(other).exists(), "the other's maps are gone");
        assert!(pins.join("peers").exists(), "the symlinks lead to maps");
    }
    let report = flow.stop().await.unwrap();
    assert!(report.sent > 1_000, "{report:?}");
    assert_eq!(report.lost(), 0, "{report:?}");
    let after = counters(host).await.fast_path.unwrap_or_default();
    assert_eq!(after.tx_packets - before.tx_packets, report.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_a_smaller_layout_are_taken_over_as_far_as_they_go() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let host = pair.host_a();
    host.stop(Daemon::Runtime, Signal::SIGTERM, pair::SOON)
        .await
        .unwrap();
    call_version(host, "v0");
    let pin = host.bpffs_dir().join("quilt-mesh/v0/peer_stats");
    shrink_counters(host, &pin, 16, 1_000_000);
    host.restart(Daemon::Runtime).unwrap();
    host.wait_serving(pair::SOON).await.unwrap();
    wait_active(host).await;
    let taken = counters(host).await.fast_path.unwrap_or_default();
    let cpus = possible_cpus();
    assert!(
        taken.tx_packets >= 1_000_000 * cpus,
        "{taken:?} on {cpus} CPUs"
    );
    assert!(taken.rx_packets < 1_000_000, "{taken:?}");
    let report = ping(pair.a.netns(), pair.b.address(), PingOptions::default())
        .await
        .unwrap();
    assert!(report.is_complete(), "{report:?}");
    let counted = counters(host).await.fast_path.unwrap_or_default();
    assert_eq!(
        counted.tx_packets - taken.tx_packets,
        report.received() as u64
    );
}

/// CPUs that the kernel keeps per-CPU values for.
fn possible_cpus() -> u64 {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let last = possible.trim().rsplit(['-', ',']).next().unwrap();
    last.parse::<u64>().unwrap() + 1
}

/// Runs bpftool inside a host's namespace.
fn bpftool(host: &Host, words: &str) {
    let command = host.bpftool_dump_command("peers");
    let program = ["/usr/sbin/bpftool", "/sbin/bpftool", "/usr/bin/bpftool"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or(&command[0]);
    let mut command = host.netns().command(program);
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "bpftool {words}: {output:?}");
}

/// Deletes an entry of a map of `host` and waits until it is back.
async fn is_filled_again(host: &Host, map: &str, key: &str) {
    let pin = host.bpffs_dir().join("quilt-mesh").join(map);
    let before = host.bpftool_dump(map).unwrap();
    bpftool(
        host,
        &format!("map delete pinned {} key {key}", pin.display()),
    );
    mesh_testbed::wait_until("the entry", pair::SOON, || async {
        let now = host.bpftool_dump(map).unwrap();
        (now == before).then_some(()).ok_or(now)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_somebody_deleted_come_back() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let octets = |address: std::net::Ipv4Addr| {
        let [a, b, c, d] = address.octets();
        format!("{a} {b} {c} {d}")
    };
    let a = pair.host_a();
    is_filled_again(a, "peers", "10 42 2 0").await;
    is_filled_again(a, "vteps", &octets(pair.host_b().address())).await;
    is_filled_again(a, "endpoints", &octets(pair.a.address())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_of_maps_that_somebody_removed_come_back_and_the_next_runtime_takes_them_over() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let a = pair.host_a();
    let report = ping(pair.a.netns(), pair.b.address(), PingOptions::default());
    assert!(report.await.unwrap().is_complete());
    let before = counters(a).await.fast_path.unwrap_or_default();
    fs::remove_dir_all(a.bpffs_dir().join("quilt-mesh")).unwrap();
    mesh_testbed::wait_until("the pins", pair::SOON, || async {
        a.bpftool_dump("peers")
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    a.stop(Daemon::Runtime, Signal::SIGKILL, pair::SOON)
        .await
        .unwrap();
    a.restart(Daemon::Runtime).unwrap();
    a.wait_serving(pair::SOON).await.unwrap();
    wait_active(a).await;
    // The counters are those of before, so the maps are.
    let after = counters(a).await.fast_path.unwrap_or_default();
    assert!(before.tx_packets > 0, "{before:?}");
    assert!(after.tx_packets >= before.tx_packets, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paths_use_the_port_and_the_vni_that_were_told() {
    let sent = |status: &mesh_proto::mesh::PeerStatus| {
        let fast = status.fast_path.unwrap_or_default().tx_packets;
        (fast, status.kernel_path.unwrap_or_default().tx_packets)
    };
    for fast_path in ["required", "off"] {
        let pair = Pair::start(&DaemonOptions::new().args(["--fast-path", fast_path])).await;
        let (a, b) = (pair.host_a(), pair.host_b());
        let settings = mesh_proto::mesh::NodeSettings {
            vxlan_port: 8472,
            vni: 7,
        };
        for (host, peer) in [
            (a, pair::peer_of(b, "10.42.2.0/24")),
            (b, pair::peer_of(a, "10.42.1.0/24")),
        ] {
            let answer = pair::sync_with(host, 2, vec![peer], Some(settings)).await;
            assert!(answer.success, "{}", answer.error);
        }
        if fast_path == "required" {
            pair.wait_fast().await;
        }
        for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            mesh_testbed::wait_reachable(from.netns(), to.address(), pair::SOON)
                .await
                .unwrap();
        }
        // What counts at the device that was made anew follows a moment after it.
        mesh_testbed::wait_until("a packet that is counted", pair::SOON, async || {
            mesh_testbed::wait_reachable(pair.a.netns(), pair.b.address(), pair::SOON)
                .await
                .map_err(|error| error.to_string())?;
            let status = counters(a).await;
            match sent(&status) {
                (0, 0) => Err(format!("{status:?}")),
                _ => Ok(()),
            }
        })
        .await
        .unwrap();
        let before = counters(a).await;
        let copied = transfer(
            pair.a.netns(),
            pair.b.netns(),
            pair.b.address(),
            1_000_000,
            Duration::from_secs(30),
        )
        .await
        .unwrap();
        assert!(copied.is_intact());
        let after = counters(a).await;
        let (fast, kernel) = (
            sent(&after).0 - sent(&before).0,
            sent(&after).1 - sent(&before).1,
        );
        match fast_path {
            "off" => assert_eq!(fast, 0),
            _ => assert_eq!(kernel, 0),
        }
        assert!(fast + kernel > 0);
        let status = a.status().await.unwrap();
        assert_eq!((status.vxlan_port, status.vni), (8472, 7));
        // Nothing else than what was told is taken for the mesh's.
        assert_eq!(status.problems(), [""; 0]);
    }
}
