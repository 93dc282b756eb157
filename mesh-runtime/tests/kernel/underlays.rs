//! The fast path is where packets of peers come and go, and follows them.

use std::time::Duration;

use mesh_proto::mesh::ListPeersRequest;
use mesh_testbed::PacketSocket;

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

/// A port of the bridge, from which packets to the peer 10.42.2.0/24 are sent.
fn add_port(host: &Host) {
    host.ip("link add c1 type veth peer name c1-far");
    host.ip("link set c1-far up");
    host.ip("link set c1 master quilt0 up");
    // The routers that are named here, and the peers, exist on paper.
    for (card, address) in [
        ("eth0", "192.0.2.9"),
        ("eth0", "192.0.2.2"),
        ("eth1", "192.0.2.2"),
        ("eth1", "198.51.100.9"),
    ] {
        host.ip(&format!(
            "neigh replace {address} lladdr 02:00:00:00:00:09 dev {card}"
        ));
    }
}

/// A packet of a container for one of the peer's.
fn packet() -> Vec<u8> {
    let mut frame = vec![0x02, 0x52, 10, 42, 1, 0, 2, 0, 0, 0, 1, 2, 8, 0];
    let mut ip = [
        0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 42, 1, 2, 10, 42, 2, 2,
    ];
    let words = ip
        .chunks(2)
        .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame.extend(ip);
    frame.extend([0x30, 0x39, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

/// How many packets the programs have sent to the only peer.
async fn sent(daemon: &Daemon) -> u64 {
    let mut dataplane = daemon.dataplane().await;
    let answer = dataplane.list_peers(ListPeersRequest {}).await.unwrap();
    let peers = answer.into_inner().peers;
    peers[0].fast_path.as_ref().map_or(0, |it| it.tx_packets)
}

fn mac_of(host: &Host, name: &str) -> Vec<u8> {
    let shown = host.ip(&format!("-oneline link show {name}"));
    let (_, rest) = shown.split_once("link/ether ").expect(&shown);
    let mac = rest.split_whitespace().next().unwrap();
    mac.split(':')
        .map(|it| u8::from_str_radix(it, 16).unwrap())
        .collect()
}

/// Waits until the programs send over that interface, which a card puts on the wire.
async fn becomes_way(host: &Host, daemon: &Daemon, name: &str, card: &str) {
    let wire = PacketSocket::open(&host.netns, &format!("{card}-far")).unwrap();
    let container = PacketSocket::open(&host.netns, "c1-far").unwrap();
    let mac = mac_of(host, name);
    host.eventually_async(&format!("the way over {name}"), async || {
        let before = sent(daemon).await;
        container.send(&packet()).unwrap();
        // VXLAN on IPv4 and UDP, from that interface.
        let carried = wire.receive(Duration::from_millis(200), |frame| {
            frame.len() > 64 && frame[6..12] == mac[..] && frame[36..38] == 4789_u16.to_be_bytes()
        });
        carried.unwrap().is_some() && sent(daemon).await > before
    })
    .await;
}

#[tokio::test]
async fn every_card_receives_and_what_is_sent_follows_a_route_that_moves() {
    let (host, daemon) = node("cards").await;
    host.ip("route add 203.0.113.0/24 via 198.51.100.9");
    daemon.sync(1, &[("10.42.2.0/24", "203.0.113.2")]).await;
    receives_on(&host, &daemon, &["eth0", "eth1"]).await;
    add_port(&host);
    becomes_way(&host, &daemon, "eth1", "eth1").await;
    host.ip("route replace 203.0.113.0/24 via 192.0.2.9");
    becomes_way(&host, &daemon, "eth0", "eth0").await;
    host.ip("route replace 203.0.113.0/24 via 198.51.100.9");
    becomes_way(&host, &daemon, "eth1", "eth1").await;
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
    add_port(&host);
    becomes_way(&host, &daemon, "eth1", "eth1").await;
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
    add_port(&host);
    host.ip("neigh replace 203.0.113.2 lladdr 02:00:00:00:00:09 dev mv0");
    becomes_way(&host, &daemon, "mv0", "eth1").await;
}

#[tokio::test]
async fn an_underlay_without_ethernet_is_left_to_the_kernel_path_and_named() {
    let (host, daemon) = node("tun").await;
    host.ip("tuntap add mode tun name tun0");
    host.ip("link set tun0 up");
    host.ip("route add 203.0.113.0/24 dev tun0");
    daemon.sync(1, &[("10.42.2.0/24", "203.0.113.2")]).await;
    receives_on(&host, &daemon, &["eth0", "eth1"]).await;
    add_port(&host);
    let container = PacketSocket::open(&host.netns, "c1-far").unwrap();
    for _ in 0..20 {
        container.send(&packet()).unwrap();
    }
    assert_eq!(sent(&daemon).await, 0, "the kernel path has it");
    let status = daemon.status().await;
    assert!(
        status
            .problems()
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
    becomes_way(&host, &daemon, "eth1", "eth1").await;
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}

/// A DHCP client may give the host's address to every interface there is, and a card that was plugged in later has the
/// highest number: none of our devices is taken for it, or the overlay's MTU would fall with each look, down to 68.
async fn the_hosts_address_on_our_devices(label: &str, fast_path: &str) {
    let host = Host::new(label).await;
    host.ip("link del eth0");
    host.ip("link add name eth0 index 500 type veth peer name eth0-far");
    host.ip("address add 192.0.2.1/24 dev eth0");
    host.ip("link set eth0 up");
    host.ip("link set eth0-far up");
    let daemon = host.start_with(fast_path, &[]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let peers = [("10.42.2.0/24", "192.0.2.2")];
    assert!(daemon.sync(1, &peers).await.success);
    for device in ["vxlan100", "quilt0"] {
        host.ip(&format!("address add 192.0.2.1/24 dev {device}"));
        // Each looks at what the kernel has told by then.
        for _ in 0..20 {
            let status = daemon.status().await;
            assert_eq!(status.overlay_mtu, 1450, "{device}");
            assert_eq!(status.problems(), [""; 0], "{device}");
        }
    }
    for device in ["vxlan100", "quilt0"] {
        let shown = host.ip(&format!("link show {device}"));
        assert!(shown.contains("mtu 1450"), "{shown}");
    }
    if fast_path != "off" {
        receives_on(&host, &daemon, &["eth0"]).await;
    }
}

#[tokio::test]
async fn a_device_of_ours_is_no_underlay_also_with_the_hosts_address_on_the_fast_path() {
    the_hosts_address_on_our_devices("ownfast", "required").await;
}

#[tokio::test]
async fn a_device_of_ours_is_no_underlay_also_with_the_hosts_address_on_the_kernel_path() {
    the_hosts_address_on_our_devices("ownkernel", "off").await;
}
