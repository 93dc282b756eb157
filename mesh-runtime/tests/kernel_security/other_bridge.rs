//! What a container of another bridge says to the host they share, and a stranger on the underlay, as if it
//! were of the mesh.

use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_testbed::{NetNs, Testbed};

use crate::{
    frames::{self, IPV4},
    inside::{datagram, ip, mac},
    packet_socket::PacketSocket,
    pair::Forged,
    scene::{HOST_MODES, Plan, Scene, in_modes},
    vxlan::VXLAN,
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

/// The other bridge's container, and its gateway.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// A bridge with a container on each host, as Docker makes it; the control plane's namespace, which does
/// nothing here, plays the first host's container.
fn docker(testbed: &Testbed) {
    let (host, container) = (testbed.hosts()[0].netns(), testbed.control().netns());
    ip(host, "link add docker0 type bridge");
    ip(host, &format!("address add {GATEWAY}/16 dev docker0"));
    ip(host, "link set docker0 up");
    ip(
        host,
        "link add vethd master docker0 type veth peer name far0",
    );
    let path = container.path().display().to_string();
    ip(host, &format!("link set far0 netns {path}"));
    ip(host, "link set vethd up");
    for name in ["all", "docker0", "vethd", "eth0"] {
        host.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")
            .unwrap();
    }
    ip(container, &format!("address add {CONTAINER}/16 dev far0"));
    ip(container, "link set far0 up");
}

fn plan() -> Plan {
    Plan {
        prepare: Some(docker),
        ..Plan::default()
    }
}

fn container(scene: &Scene) -> &NetNs {
    scene.pair.testbed.control().netns()
}

/// What the container sends to its gateway's MAC address.
fn send(scene: &Scene, packet: &[u8]) {
    let from = container(scene);
    let next_hop = mac(scene.pair.host_a().netns(), "docker0");
    let frame = frames::ethernet(next_hop, mac(from, "far0"), IPV4, packet);
    PacketSocket::open(from, "far0").send(from, &vec![frame; TIMES]);
}

/// A way out of the container that its host answers to.
fn marker(scene: &Scene) -> impl Fn(&[u8]) {
    let from = container(scene);
    move |payload| datagram(from, SocketAddrV4::new(GATEWAY, PORT), payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_another_bridge_cannot_narrow_the_path_to_another_node() {
    in_modes(HOST_MODES, plan(), async |scene| {
        let (host, peer) = (scene.home(), scene.away());
        let inner = Forged::proper(
            scene.sibling().address(),
            scene.far().address(),
            PORT,
            &[0; 64],
        );
        let flow = (host.address(), 50_000);
        let flow = frames::udp_packet(flow, (peer.address(), VXLAN), &inner.bytes());
        let message = frames::icmp(3, 4, [0, 0, 2, 0x58], &flow[..100]);
        let listener = Listener::on(host.netns());
        for target in [GATEWAY, host.address()] {
            send(
                scene,
                &frames::ipv4(CONTAINER, target, frames::ICMP, &message),
            );
        }
        sees_no(b"nothing of this kind", &listener, marker(scene));
        let path = ip(host.netns(), &format!("route get {}", peer.address()));
        assert!(!path.contains("mtu"), "{path}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_another_bridge_does_not_speak_as_one_of_the_mesh_to_the_host() {
    in_modes(HOST_MODES, plan(), async |scene| {
        let host = scene.home();
        let listener = Listener::on(host.netns());
        for source in [scene.sibling().address(), scene.far().address()] {
            for target in [host.address(), scene.gateway(), GATEWAY] {
                let packet = frames::udp_packet((source, 4444), (target, PORT), FORGED);
                send(scene, &packet);
            }
        }
        sees_no(FORGED, &listener, marker(scene));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_speak_as_a_hosts_own_container_to_it() {
    in_modes(HOST_MODES, plan(), async |scene| {
        let (host, stranger) = (scene.home(), scene.pair.stranger());
        let listener = Listener::on(host.netns());
        let own = (scene.sibling().address(), 4444);
        let packet = frames::udp_packet(own, (host.address(), PORT), FORGED);
        let next_hop = mac(host.netns(), "eth0");
        let frame = frames::ethernet(next_hop, mac(stranger.netns(), "eth0"), IPV4, &packet);
        let socket = PacketSocket::open(stranger.netns(), "eth0");
        socket.send(stranger.netns(), &vec![frame; TIMES]);
        sees_no(FORGED, &listener, |payload| {
            datagram(
                stranger.netns(),
                SocketAddrV4::new(host.address(), PORT),
                payload,
            );
        });
    })
    .await;
}
