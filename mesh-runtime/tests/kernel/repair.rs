//! What others do to our part of the kernel is undone, and what is theirs survives.

use std::{net::TcpStream, os::unix::process::CommandExt as _, time::Duration};

use mesh_testbed::Signal;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::host::{Host, lines};

const PEERS: &[(&str, &str)] = &[("10.42.2.0/24", "192.0.2.2"), ("10.42.3.0/24", "192.0.2.3")];

/// A node with two peers and one injected route.
async fn node(label: &str) -> (Host, crate::host::Daemon) {
    let host = Host::new(label).await;
    let daemon = host.start().await;
    let daemon = with_peers(&host, daemon).await;
    (host, daemon)
}

async fn with_peers(host: &Host, daemon: crate::host::Daemon) -> crate::host::Daemon {
    daemon.configure("10.42.1.0/24").await.unwrap();
    assert!(daemon.sync(1, PEERS).await.success);
    daemon.inject("10.42.9.0/24", "vxlan100").await.unwrap();
    assert!(is_whole(host));
    daemon
}

/// Whether the kernel shows everything that is wanted, and nothing else on our device.
fn is_whole(host: &Host) -> bool {
    let links = host.ip("-details link show");
    links.contains("02:51:0a:2a:01:00")
        && lines(&host.ip("-oneline link show type vxlan"))
            .iter()
            .any(|link| link.contains("vxlan100:") && link.contains("mtu 1450"))
        && host.ip("link show up").contains("vxlan100")
        && host.ip("address show").contains("10.42.1.1/24")
        && host.own_routes()
            == [
                "10.42.2.0/24 via 10.42.2.0 dev vxlan100 src 10.42.1.1 onlink",
                "10.42.3.0/24 via 10.42.3.0 dev vxlan100 src 10.42.1.1 onlink",
                "10.42.9.0/24 via 10.42.9.0 dev vxlan100 src 10.42.1.1 onlink",
            ]
        && lines(&host.ip("neighbour show dev vxlan100")).len() == 3
        && lines(&host.bridge("fdb show dev vxlan100")).len() == 2
}

async fn is_repaired(label: &str, damage: &[&str]) {
    let (host, daemon) = node(label).await;
    // Stopped meanwhile, so that all of the damage is done before the first repair.
    daemon.pause().await;
    for words in damage {
        host.ip(words);
    }
    assert!(!is_whole(&host), "the damage left no mark");
    daemon.signal(Signal::SIGCONT);
    host.eventually("the repair", is_whole).await;
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}

#[tokio::test]
async fn a_deleted_vxlan_device_comes_back_with_all_its_routes() {
    is_repaired("deleted", &["link del vxlan100"]).await;
}

#[tokio::test]
async fn a_vxlan_device_that_somebody_made_anew_is_made_right() {
    is_repaired(
        "anew",
        &[
            "link del vxlan100",
            "link add vxlan100 type vxlan id 100 dstport 8472 dev eth0",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_rewritten_mac_address_is_put_right() {
    is_repaired("mac", &["link set vxlan100 address 02:00:00:00:00:07"]).await;
}

#[tokio::test]
async fn a_vxlan_device_that_is_set_down_comes_up_with_all_its_routes() {
    is_repaired("down", &["link set vxlan100 down"]).await;
}

#[tokio::test]
async fn a_wrong_mtu_is_put_right() {
    is_repaired("mtu", &["link set vxlan100 mtu 1500"]).await;
}

#[tokio::test]
async fn a_deleted_bridge_comes_back() {
    is_repaired("bridge", &["link del quilt0"]).await;
}

#[tokio::test]
async fn a_deleted_bridge_gets_back_the_ports_that_it_had_and_no_other() {
    let (host, daemon) = node("ports").await;
    host.ip("link add port0 type veth peer port0-far");
    host.ip("link add free0 type veth peer free0-far");
    host.ip("link set port0 master quilt0");
    // Answered after the round that has seen the port.
    daemon.sync(2, PEERS).await;
    host.ip("link del quilt0");
    host.eventually("the port", |host| {
        is_whole(host) && host.ip("link show port0").contains("master quilt0")
    })
    .await;
    assert!(!host.ip("link show free0").contains("master"));
    // One that somebody took away stays away.
    host.ip("link set port0 nomaster");
    daemon.sync(3, PEERS).await;
    host.ip("link del quilt0");
    host.eventually("the bridge", is_whole).await;
    assert!(!host.ip("link show port0").contains("master"));
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}

#[tokio::test]
async fn a_removed_address_comes_back() {
    is_repaired("address", &["address flush dev quilt0"]).await;
}

#[tokio::test]
async fn flushed_routes_come_back() {
    is_repaired("routes", &["route flush proto 81"]).await;
}

#[tokio::test]
async fn a_route_that_somebody_changed_is_put_right() {
    is_repaired(
        "changed",
        &["route replace 10.42.2.0/24 via 10.42.3.0 dev vxlan100 onlink proto 81"],
    )
    .await;
}

#[tokio::test]
async fn flushed_neighbours_come_back() {
    is_repaired(
        "neighbours",
        &["neighbour flush dev vxlan100 nud permanent"],
    )
    .await;
}

#[tokio::test]
async fn foreign_entries_on_our_device_are_removed() {
    is_repaired(
        "entries",
        &[
            "neighbour add 10.42.7.0 lladdr 02:00:00:00:00:07 dev vxlan100",
            "route add 10.42.7.0/24 dev vxlan100 proto 81",
        ],
    )
    .await;
}

#[tokio::test]
async fn flushed_and_falsified_forwarding_entries_are_put_right() {
    let (host, _daemon) = node("fdb").await;
    host.bridge("fdb del 02:51:0a:2a:02:00 dev vxlan100 self");
    host.bridge("fdb replace 02:51:0a:2a:03:00 dst 192.0.2.99 dev vxlan100 self");
    host.bridge("fdb add 02:51:0a:2a:09:09 dst 192.0.2.98 dev vxlan100 self");
    host.eventually("the repair", |host| {
        let mut entries = lines(&host.bridge("fdb show dev vxlan100"));
        entries.sort();
        entries
            == [
                "02:51:0a:2a:02:00 dst 192.0.2.2 self permanent",
                "02:51:0a:2a:03:00 dst 192.0.2.3 self permanent",
            ]
    })
    .await;
}

#[tokio::test]
async fn forwarding_that_somebody_switched_off_is_switched_on_again() {
    let (host, daemon) = node("forwarding").await;
    let set = || host.netns.sysctl("net/ipv4/ip_forward", "0");
    // More than once: the notifications of our own change must not hide the next one.
    for _ in 0..3 {
        set().unwrap();
        host.eventually("forwarding", |host| {
            let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
            host.netns.run(read).unwrap().unwrap().trim() == "1"
        })
        .await;
    }
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}

/// What the kernel tells nobody is looked at along with peers that are sent again, and not only when its own time comes.
#[tokio::test]
async fn peers_that_are_sent_again_bring_a_look_at_what_nobody_tells_along() {
    const SETTING: &str = "net/ipv6/conf/quilt0/accept_ra";
    let (host, daemon) = node("along").await;
    let is_set_again = async |generation| {
        host.netns.sysctl(SETTING, "1").unwrap();
        let answer = daemon.sync(generation, PEERS).await;
        assert!(answer.success, "{answer:?}");
        // Whoever asks now waits for what came along.
        daemon.status().await;
        let read = || std::fs::read_to_string(format!("/proc/sys/{SETTING}"));
        host.netns.run(read).unwrap().unwrap().trim() == "0"
    };
    let mut generation = 10;
    while !is_set_again(generation).await {
        // Its own time had come shortly before.
        generation += 1;
        assert!(generation < 12, "only its own time brings a look");
        tokio::time::sleep(Duration::from_millis(2600)).await;
    }
}

#[tokio::test]
async fn a_lost_underlay_is_reported_and_everything_is_there_when_it_returns() {
    let (host, daemon) = node("underlay").await;
    host.ip("address del 192.0.2.1/24 dev eth0");
    host.ip("link set eth0 down");
    let problems = daemon.status().await.problems();
    assert!(
        problems[0].contains("192.0.2.1 is on no interface"),
        "{problems:?}"
    );
    assert!(is_whole(&host), "the overlay stays as it is");
    host.ip("link set eth0 up");
    host.ip("address add 192.0.2.1/24 dev eth0");
    host.eventually("the underlay", is_whole).await;
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}

#[tokio::test]
async fn foreign_objects_survive_everything() {
    let host = Host::new("theirs").await;
    host.ip("link add other0 type bridge");
    host.ip("address add 10.42.200.1/24 dev other0");
    host.ip("link set other0 up");
    host.ip("link add vx7 type vxlan id 7 dstport 4789 local 192.0.2.1 nolearning");
    host.ip("link set vx7 up");
    host.bridge("fdb add 02:00:00:00:00:01 dst 192.0.2.77 dev vx7");
    host.ip("neighbour add 192.0.2.50 lladdr 02:00:00:00:00:02 dev eth0");
    host.ip("route add 10.42.100.0/24 via 192.0.2.254 dev eth0");
    host.ip("route add 172.16.0.0/16 via 192.0.2.254 dev eth0 proto 81");
    host.ip("route add blackhole 10.42.0.0/16 metric 4000");
    let theirs = |host: &Host| {
        [
            host.ip("link show other0"),
            host.ip("address show other0"),
            host.bridge("fdb show dev vx7"),
            host.ip("neighbour show dev eth0 nud permanent"),
            host.ip("route show 10.42.100.0/24"),
            host.ip("route show 172.16.0.0/16"),
            host.ip("route show type blackhole"),
            host.ip("route show 10.42.200.0/24"),
        ]
        .concat()
    };
    let before = theirs(&host);
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.sync(1, PEERS).await;
    daemon.inject("10.42.9.0/24", "vxlan100").await.unwrap();
    host.ip("link del vxlan100");
    daemon.remove("10.42.100.0/24").await.unwrap();
    daemon.sync(2, &[]).await;
    daemon.remove("10.42.9.0/24").await.unwrap();
    daemon.configure("10.42.5.0/24").await.unwrap();
    assert_eq!(theirs(&host), before);
    daemon.end(Signal::SIGTERM).await;
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success(), "{text}");
    assert_eq!(theirs(&host), before);
}

/// More connections than most processes may have files open (the soft limit of `RLIMIT_NOFILE` is 1024).
const CALLERS: usize = 1100;

#[tokio::test]
async fn a_deleted_route_comes_back_beside_more_callers_than_a_process_usually_has_files() {
    let host = Host::new("callers").await;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let mut command = host.daemon_command("off", &[]);
    let as_usual = move || Ok(setrlimit(Resource::RLIMIT_NOFILE, 1024, hard)?);
    // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe.
    unsafe { command.pre_exec(as_usual) };
    let daemon = host.start_command(command).await;
    let daemon = with_peers(&host, daemon).await;
    // The test holds the other ends.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let connect = || -> std::io::Result<Vec<TcpStream>> {
        let all = (0..CALLERS).map(|_| TcpStream::connect("127.0.0.1:50051"));
        all.collect()
    };
    let callers = host.netns.run(connect).unwrap().unwrap();
    assert_eq!(callers.len(), CALLERS);
    host.ip("route del 10.42.2.0/24");
    host.eventually("the repair", is_whole).await;
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}
