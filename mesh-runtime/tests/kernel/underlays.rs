//! The fast path is where packets of peers come and go, and follows them.

use crate::host::{Daemon, Host};

/// A host with a second network card, whose daemon carries traffic on the fast path.
async fn node(label: &str) -> (Host, Daemon) {
    let host = Host::new(label).await;
    host.ip("link add eth1 type veth peer name eth1-far");
    host.ip("address add 198.51.100.1/24 dev eth1");
    host.ip("link set eth1 up");
    host.ip("link set eth1-far up");
    let daemon = host.start_with("required", &[]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    (host, daemon)
}

/// Waits until the interfaces with the receiving program are these.
async fn receives_on(host: &Host, daemon: &Daemon, expected: &[&str]) {
    host.eventually_async(&format!("decapsulate on {expected:?}"), async || {
        let attachments = daemon.status().await.fast_path.unwrap().attachments;
        let mut names: Vec<&str> = attachments
            .iter()
            .filter_map(|it| it.strip_suffix(": decapsulate"))
            .collect();
        names.sort_unstable();
        names == expected
    })
    .await;
}

/// Index of the interface over which the fast path sends to its only peer.
fn sends_over(host: &Host) -> u64 {
    let pin = host.bpffs().join("quilt-mesh/peers");
    let mut bpftool = host.netns.command("bpftool");
    let dump = bpftool
        .args(["map", "dump", "pinned"])
        .arg(pin)
        .output()
        .unwrap();
    let text = String::from_utf8(dump.stdout).unwrap();
    let (_, rest) = text.split_once("\"link\": ").expect(&text);
    rest.split(',').next().unwrap().trim().parse().unwrap()
}

fn index_of(host: &Host, name: &str) -> u64 {
    let line = host.ip(&format!("-oneline link show {name}"));
    line.split(':').next().unwrap().parse().unwrap()
}

async fn becomes_way(host: &Host, name: &str) {
    let index = index_of(host, name);
    host.eventually(&format!("the way over {name}"), |host| {
        sends_over(host) == index
    })
    .await;
}

#[tokio::test]
async fn every_card_receives_and_what_is_sent_follows_a_route_that_moves() {
    let (host, daemon) = node("cards").await;
    host.ip("route add 203.0.113.0/24 via 198.51.100.9");
    daemon.sync(1, &[("10.42.2.0/24", "203.0.113.2")]).await;
    receives_on(&host, &daemon, &["eth0", "eth1"]).await;
    becomes_way(&host, "eth1").await;
    host.ip("route replace 203.0.113.0/24 via 192.0.2.9");
    becomes_way(&host, "eth0").await;
    host.ip("route replace 203.0.113.0/24 via 198.51.100.9");
    becomes_way(&host, "eth1").await;
    receives_on(&host, &daemon, &["eth0", "eth1"]).await;
}

#[tokio::test]
async fn a_host_address_that_moves_to_another_card_takes_the_program_along() {
    let (host, daemon) = node("moves").await;
    daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    receives_on(&host, &daemon, &["eth0", "eth1"]).await;
    host.ip("address del 192.0.2.1/24 dev eth0");
    host.ip("address add 192.0.2.1/24 dev eth1");
    receives_on(&host, &daemon, &["eth1"]).await;
    becomes_way(&host, "eth1").await;
    assert_eq!(daemon.status().await.underlay_interface, "eth1");
}

#[tokio::test]
async fn what_is_stacked_on_a_card_is_an_underlay_like_the_card() {
    let (host, daemon) = node("stacked").await;
    host.ip("link add link eth1 name mv0 type macvlan mode bridge");
    host.ip("address add 203.0.113.1/24 dev mv0");
    host.ip("link set mv0 up");
    daemon.sync(1, &[("10.42.2.0/24", "203.0.113.2")]).await;
    receives_on(&host, &daemon, &["eth0", "eth1", "mv0"]).await;
    becomes_way(&host, "mv0").await;
}

#[tokio::test]
async fn an_underlay_without_ethernet_is_left_to_the_kernel_path_and_named() {
    let (host, daemon) = node("tun").await;
    host.ip("tuntap add mode tun name tun0");
    host.ip("link set tun0 up");
    host.ip("route add 203.0.113.0/24 dev tun0");
    daemon.sync(1, &[("10.42.2.0/24", "203.0.113.2")]).await;
    receives_on(&host, &daemon, &["eth0", "eth1"]).await;
    assert_eq!(sends_over(&host), 0, "the kernel path has it");
    let status = daemon.status().await;
    assert!(
        status
            .problems
            .iter()
            .any(|it| it.contains("no fast path over tun0")),
        "{status:?}"
    );
    assert!(
        host.own_routes()[0].contains("10.42.2.0/24"),
        "and carries it"
    );
    let log = daemon.log();
    assert_eq!(log.matches("no fast path over tun0").count(), 1, "{log}");

    host.ip("route replace 203.0.113.0/24 via 198.51.100.9");
    becomes_way(&host, "eth1").await;
    assert_eq!(daemon.status().await.problems, [""; 0]);
}
