//! What the way out does not translate: it leaves the node for nobody, or it is none of ours.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use mesh_testbed::NetNs;

use crate::{
    frames::{self, IPV4},
    inside::{ip, mac},
    packet_socket::PacketSocket,
    pair::SOON,
    port::bind,
    scene::{HOST_MODES, MODES, Plan, Scene, in_modes},
    witness::{Listener, sees, sees_no},
};

/// `ICMP_ECHOREPLY`.
const ICMP: u8 = 1;
const ECHO_REPLY: u8 = 0;

/// Packets of no connection: an answer that nobody has asked for, and a first packet that is the last at once.
fn of_no_connection(own: Ipv4Addr, target: Ipv4Addr) -> [Vec<u8>; 2] {
    /// Where a TCP segment behind an IPv4 header has its flags, and its checksum.
    const FLAGS: usize = 33;
    const CHECKSUM: usize = 36;
    const FIN: u8 = 1;
    let message = frames::icmp(ECHO_REPLY, 0, [0, 7, 0, 1], b"nobody has asked");
    let mut both = frames::tcp_syn((own, 4444), (target, 80));
    both[FLAGS] |= FIN;
    let sum = u16::from_be_bytes([both[CHECKSUM], both[CHECKSUM + 1]]) - u16::from(FIN);
    both[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    [frames::ipv4(own, target, ICMP, &message), both]
}

fn send(scene: &Scene, packets: &[Vec<u8>]) {
    let attacker = scene.attacker.netns();
    let socket = PacketSocket::open(attacker, "eth0");
    let macs = (scene.gateway_mac(), mac(attacker, "eth0"));
    let frames: Vec<Vec<u8>> = packets
        .iter()
        .map(|packet| frames::ethernet(macs.0, macs.1, IPV4, packet))
        .collect();
    socket.send(attacker, &frames);
}

/// Source and destination as they stand in an IPv4 header.
fn addresses(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    [source.octets(), target.octets()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_under_a_containers_own_address_also_if_it_is_of_no_connection() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (own, stranger) = (scene.attacker.address(), scene.pair.stranger());
        let target = stranger.address();
        let sniffer = PacketSocket::open(stranger.netns(), "eth0");
        for packet in of_no_connection(own, target) {
            send(scene, &[packet]);
            let marker = Scene::marker(scene.attacker.netns(), target);
            sees_no(&addresses(own, target), &sniffer, marker);
        }
    })
    .await;
}

/// Who knows the way back may be told whatever it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_no_connection_reaches_a_lan_that_is_let_in() {
    reaches_the_stranger(["--routed-from", "192.0.2.4/32"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_no_connection_reaches_the_outside_without_masquerading() {
    reaches_the_stranger(["--masquerade", "off"]).await;
}

async fn reaches_the_stranger(arguments: [&str; 2]) {
    let plan = Plan {
        arguments: arguments.map(Into::into).to_vec(),
        ..Plan::default()
    };
    in_modes(HOST_MODES, plan, async |scene| {
        let stranger = scene.pair.stranger();
        reach(scene, stranger.netns(), stranger.address());
    })
    .await;
}

/// One direction of a connection may be carried by the programs, and the other by the kernel.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_no_connection_reaches_the_mesh() {
    in_modes(MODES, Plan::default(), async |scene| {
        let far = scene.far();
        reach(scene, far.netns(), far.address());
        reach(scene, scene.other.netns(), scene.other.address());
    })
    .await;
}

fn reach(scene: &Scene, netns: &NetNs, target: Ipv4Addr) {
    let own = scene.attacker.address();
    let sniffer = PacketSocket::open(netns, "eth0");
    for packet in of_no_connection(own, target) {
        // From the source address on, all of it but what routers change.
        let unchanged = packet[12..].to_vec();
        let packet = std::slice::from_ref(&packet);
        sees(&unchanged, &sniffer, |_| send(scene, packet));
    }
    // And nothing was lost besides.
    let listener = Listener::on(netns);
    let marker = Scene::marker(scene.attacker.netns(), target);
    sees(b"a marker", &listener, |payload| marker(payload));
}

const SERVICE: u16 = 8000;

/// The mesh carries none: whoever has given containers addresses of it, and their host a way, has their way.
#[tokio::test(flavor = "multi_thread")]
async fn ipv6_of_a_container_goes_out_as_it_is() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (home, stranger) = (scene.home().netns(), scene.pair.stranger().netns());
        let container = scene.attacker.netns();
        for netns in [home, stranger, container] {
            netns.sysctl("net/ipv6/conf/all/disable_ipv6", "0").unwrap();
        }
        for (netns, words) in [
            (home, "address add fd00:42::1/64 dev quilt0 nodad"),
            (home, "address add fd00:2::2/64 dev eth0 nodad"),
            (stranger, "address add fd00:2::4/64 dev eth0 nodad"),
            (stranger, "route add fd00:42::/64 via fd00:2::2"),
            (container, "address add fd00:42::2/64 dev eth0 nodad"),
            (container, "route add default via fd00:42::1"),
        ] {
            ip(netns, &format!("-6 {words}"));
        }
        home.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        let server = udp(stranger);
        let client = udp(container);
        let to: Ipv6Addr = "fd00:2::4".parse().unwrap();
        let mut seen = None;
        for _ in 0..40 {
            client.send_to(b"who am I?", (to, SERVICE)).unwrap();
            seen = server.recv_from(&mut [0; 64]).ok();
            if seen.is_some() {
                break;
            }
        }
        let (_, seen) = seen.unwrap_or_else(|| panic!("nothing arrived in {SOON:?}"));
        assert_eq!(seen.ip(), "fd00:42::2".parse::<Ipv6Addr>().unwrap());
    })
    .await;
}

/// A socket that waits for a fortieth of [`SOON`].
fn udp(netns: &NetNs) -> UdpSocket {
    let socket = bind(netns, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SERVICE)));
    socket.set_read_timeout(Some(SOON / 40)).unwrap();
    socket
}
