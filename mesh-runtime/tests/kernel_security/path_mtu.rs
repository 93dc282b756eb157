//! A container that says the path between two nodes were narrow: it would slow down, or break,
//! what all containers of both nodes exchange.

use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_testbed::{Host, NetNs};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    frames::{self, IPV4, reserved_mac},
    inside::{datagram, ip, mac},
    packet_socket::PacketSocket,
    pair::{Forged, SOON},
    scene::{MODES, Plan, Scene, in_modes},
    witness::{Listener, PORT, TIMES, sees_no},
};

const VXLAN: u16 = mesh_layout::VXLAN_PORT;
/// The least that the kernel believes (net.ipv4.route.min_pmtu is 552).
const NARROW: u16 = 600;

/// "Fragmentation needed" (RFC 1191) about the VXLAN that `host` sends to `peer`.
fn narrow(container: Ipv4Addr, host: Ipv4Addr, peer: Ipv4Addr) -> Vec<u8> {
    let inner = Forged::proper(
        Ipv4Addr::new(10, 42, 1, 2),
        Ipv4Addr::new(10, 42, 2, 2),
        PORT,
        &[0; 64],
    );
    let flow = frames::udp_packet((host, 50_000), (peer, VXLAN), &inner.bytes());
    let [high, low] = NARROW.to_be_bytes();
    let message = frames::icmp(3, 4, [0, 0, high, low], &flow[..100]);
    frames::ipv4(container, host, frames::ICMP, &message)
}

/// What the kernel says of the way to a peer, with what it has learnt.
fn path(host: &NetNs, peer: Ipv4Addr) -> String {
    ip(host, &format!("route get {peer}"))
}

/// Sends the message to `deceived` about its way to `peer`, which learns nothing from it.
fn learns_nothing(scene: &Scene, deceived: &Host, peer: &Host) {
    let attacker = scene.attacker.netns();
    let packet = narrow(scene.attacker.address(), deceived.address(), peer.address());
    let own = mac(attacker, "eth0");
    let listener = Listener::on(deceived.netns());
    let socket = PacketSocket::open(attacker, "eth0");
    // To the bridge, and past it.
    for next_hop in [scene.gateway_mac(), reserved_mac(0x02), reserved_mac(0x0e)] {
        let frame = frames::ethernet(next_hop, own, IPV4, &packet);
        socket.send(attacker, &vec![frame; TIMES]);
    }
    let to = SocketAddrV4::new(deceived.address(), PORT);
    sees_no(b"nothing of this kind", &listener, |marker| {
        datagram(attacker, to, marker);
    });
    let path = path(deceived.netns(), peer.address());
    assert!(!path.contains("mtu"), "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_narrow_the_path_of_its_host_to_another() {
    in_modes(MODES, Plan::default(), async |scene| {
        learns_nothing(scene, scene.home(), scene.away());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_narrow_the_path_of_another_host_to_its_own() {
    in_modes(MODES, Plan::default(), async |scene| {
        learns_nothing(scene, scene.away(), scene.home());
    })
    .await;
}

/// The same by the overlay: to the other node's gateway, which is the host as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_narrow_the_path_of_another_host_by_its_gateway() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, away) = (scene.attacker.netns(), scene.away());
        let gateway = crate::scene::gateway_of(scene.far().address());
        let [high, low] = NARROW.to_be_bytes();
        let inner = Forged::proper(gateway, scene.attacker.address(), PORT, &[0; 64]);
        let outer = (away.address(), 50_000);
        let flow = frames::udp_packet(outer, (scene.home().address(), VXLAN), &inner.bytes());
        let message = frames::icmp(3, 4, [0, 0, high, low], &flow[..100]);
        let own = (scene.attacker.address(), mac(attacker, "eth0"));
        let packet = frames::ipv4(own.0, gateway, frames::ICMP, &message);
        let frame = frames::ethernet(scene.gateway_mac(), own.1, IPV4, &packet);
        let listener = Listener::on(away.netns());
        let socket = PacketSocket::open(attacker, "eth0");
        socket.send(attacker, &vec![frame; TIMES]);
        let marker = Scene::marker(attacker, gateway);
        sees_no(b"nothing of this kind", &listener, marker);
        let path = path(away.netns(), scene.home().address());
        assert!(!path.contains("mtu"), "{path}");
    })
    .await;
}

/// The identifier of a host's own ping.
const PING: [u8; 2] = [0x51, 0x11];

/// Has `host` ping `peer`, so that the connection tracking knows the flow. The kernel listens to
/// errors about it as long as the socket lives.
fn ping_known(host: &NetNs, peer: Ipv4Addr) -> Socket {
    let [high, low] = PING;
    let request = frames::icmp(8, 0, [high, low, 0, 1], &[7; 56]);
    host.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let to = SockAddr::from(SocketAddrV4::new(peer, 0));
        socket.send_to(&request, &to).unwrap();
        let mut answer = [std::mem::MaybeUninit::new(0); 100];
        socket.recv(&mut answer).unwrap();
        socket
    })
    .unwrap()
}

/// The same message about a flow that the deceived host has itself, and tracks.
fn learns_nothing_of_its_own_flow(scene: &Scene, deceived: &Host, peer: &Host) {
    let _pinging = ping_known(deceived.netns(), peer.address());
    let attacker = scene.attacker.netns();
    let [high, low] = NARROW.to_be_bytes();
    let request = frames::icmp(8, 0, [PING[0], PING[1], 0, 1], &[7; 56]);
    let flow = frames::ipv4(deceived.address(), peer.address(), frames::ICMP, &request);
    let message = frames::icmp(3, 4, [0, 0, high, low], &flow);
    let own = (scene.attacker.address(), mac(attacker, "eth0"));
    let packet = frames::ipv4(own.0, deceived.address(), frames::ICMP, &message);
    let frame = frames::ethernet(scene.gateway_mac(), own.1, IPV4, &packet);
    let listener = Listener::on(deceived.netns());
    PacketSocket::open(attacker, "eth0").send(attacker, &vec![frame; TIMES]);
    let to = SocketAddrV4::new(deceived.address(), PORT);
    sees_no(b"nothing of this kind", &listener, |marker| {
        datagram(attacker, to, marker);
    });
    let path = path(deceived.netns(), peer.address());
    assert!(!path.contains("mtu"), "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_narrow_the_path_of_a_ping_of_its_host() {
    in_modes(MODES, Plan::default(), async |scene| {
        learns_nothing_of_its_own_flow(scene, scene.home(), scene.away());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_narrow_the_path_of_a_ping_of_another_host() {
    in_modes(MODES, Plan::default(), async |scene| {
        learns_nothing_of_its_own_flow(scene, scene.away(), scene.home());
    })
    .await;
}
