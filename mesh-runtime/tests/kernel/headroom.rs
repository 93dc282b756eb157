//! The device that makes containers leave room for the headers of encapsulation.

use futures_util::TryStreamExt as _;
use mesh_testbed::{NetNs, Signal};
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::packet_core::{DefaultNla, Nla as _};

use crate::host::{Daemon, Host};

/// `IFLA_HEADROOM` of linux/if_link.h, shown from Linux 6.16 on.
const IFLA_HEADROOM: u16 = 68;
/// What encapsulation adds: outer Ethernet, IPv4, UDP, VXLAN and inner Ethernet headers.
const NEEDED: u16 = 64;

async fn node(label: &str) -> (Host, Daemon) {
    let host = Host::new(label).await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    host.eventually("the device", is_whole).await;
    (host, daemon)
}

/// Whether the device is there as it should be: ours, down, a port of the bridge, and with
/// the overlay's MTU.
fn is_whole(host: &Host) -> bool {
    let shown = host.ip("-oneline -details link show type vxlan");
    let device = shown.lines().find(|line| line.contains("quilt-headroom"));
    device.is_some_and(|line| {
        [
            "fe:51:00:00:00:00",
            "id 16777214 ",
            "master quilt0",
            "mtu 1450",
            "state DOWN",
        ]
        .iter()
        .all(|part| line.contains(part))
    })
}

/// The bytes that the interface asks packets to leave before them.
async fn headroom(netns: &NetNs, interface: &str) -> u16 {
    let netlink = netns.netlink().unwrap();
    let request = netlink.link().get().match_name(interface.to_owned());
    let mut links = std::pin::pin!(request.execute());
    let link = links.try_next().await.unwrap().unwrap();
    let shown: Option<&DefaultNla> = link.attributes.iter().find_map(|it| match it {
        LinkAttribute::Other(other) if other.kind() == IFLA_HEADROOM => Some(other),
        _ => None,
    });
    let shown = shown.expect("this test needs a kernel that shows IFLA_HEADROOM (6.16)");
    let mut bytes = [0; 2];
    shown.emit_value(&mut bytes);
    u16::from_ne_bytes(bytes)
}

/// Adds a port to the bridge as Docker does, and returns the far end's namespace.
async fn add_port(host: &Host, name: &str) -> NetNs {
    let far = NetNs::new(name).await.unwrap();
    host.ip(&format!("link add {name} type veth peer name {name}-far"));
    let path = far.path().display().to_string();
    host.ip(&format!("link set {name}-far netns {path}"));
    host.ip(&format!("link set {name} master quilt0 up"));
    far
}

#[tokio::test]
async fn containers_there_and_later_leave_room_for_the_headers_of_encapsulation() {
    let host = Host::new("headroom").await;
    host.ip("link add quilt0 address 02:52:0a:2a:01:00 type bridge");
    let before = add_port(&host, "before").await;
    assert_eq!(headroom(&before, "before-far").await, 0);

    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    host.eventually("the device", is_whole).await;
    assert_eq!(headroom(&before, "before-far").await, NEEDED);
    let after = add_port(&host, "after").await;
    assert_eq!(headroom(&after, "after-far").await, NEEDED);
}

#[tokio::test]
async fn the_device_costs_the_bridge_nothing_else() {
    let (host, daemon) = node("headroom-costs").await;
    let _far = add_port(&host, "c1").await;
    let bridge = host.ip("-details link show quilt0");
    assert!(bridge.contains("mtu 1450"), "{bridge}");
    assert!(bridge.contains("02:52:0a:2a:01:00"), "{bridge}");
    // Down: it has no socket, and nothing is forwarded to it or learnt from it.
    let ports = host.bridge("link show");
    let device = ports.lines().find(|line| line.contains("quilt-headroom"));
    assert!(device.unwrap().contains("state disabled"), "{ports}");
    let sockets = host
        .netns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/udp").unwrap())
        .unwrap();
    assert!(sockets.contains(":12B5"), "4789 is vxlan100's: {sockets}");
    assert!(!sockets.contains(":12B6"), "4790 is open: {sockets}");
    // It is nobody's container.
    let status = daemon.status().await;
    assert!(status.endpoints.is_empty(), "{:?}", status.endpoints);
    assert_eq!(status.problems(), [""; 0]);
}

async fn is_put_right(label: &str, damage: &[&str]) {
    let (host, daemon) = node(label).await;
    daemon.pause().await;
    for words in damage {
        host.ip(words);
    }
    assert!(!is_whole(&host), "the damage left no mark");
    daemon.signal(Signal::SIGCONT);
    host.eventually("the repair", is_whole).await;
}

#[tokio::test]
async fn a_headroom_device_that_is_deleted_comes_back() {
    is_put_right("headroom-deleted", &["link del quilt-headroom"]).await;
}

#[tokio::test]
async fn a_headroom_device_that_is_brought_up_is_taken_down() {
    is_put_right("headroom-up", &["link set quilt-headroom up"]).await;
}

#[tokio::test]
async fn a_headroom_device_that_is_taken_from_the_bridge_returns() {
    let damage = ["link set quilt-headroom nomaster mtu 1400"];
    is_put_right("headroom-off", &damage).await;
}

#[tokio::test]
async fn the_headroom_device_follows_the_overlays_mtu() {
    let (host, _daemon) = node("headroom-mtu").await;
    host.ip("link set eth0 mtu 1400");
    host.eventually("the new MTU", |host| {
        host.ip("link show quilt-headroom").contains("mtu 1350")
    })
    .await;
}

#[tokio::test]
async fn an_interface_that_has_the_headroom_devices_name_is_left_alone() {
    let host = Host::new("headroom-name").await;
    host.ip("link add quilt-headroom type bridge");
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    assert!(
        daemon
            .sync(1, &[("10.42.2.0/24", "192.0.2.2")])
            .await
            .success
    );
    let shown = host.ip("-details link show quilt-headroom");
    assert!(
        shown.contains("bridge") && !shown.contains("master"),
        "{shown}"
    );
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}
