//! Bytes behind the end of an IP packet, which the link carries and nobody may read: behind a
//! first fragment with the UDP header alone they look like a VXLAN header that a guard lets pass.

use std::net::Ipv4Addr;

use mesh_testbed::{NetNs, Testbed};

use crate::{
    frames::{self, IPV4, UDP},
    inside::{filter_bridges, mac},
    packet_socket::PacketSocket,
    pair::Forged,
    scene::{HOST_MODES, MODES, Mode, Plan, Scene, gateway_of, in_modes},
    vxlan::VXLAN,
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

/// More fragments follow.
const MORE: u16 = 0x2000;

/// A VXLAN header of another network's number.
const OTHER: [u8; 8] = [8, 0, 0, 0, 0, 0, 101, 0];

/// The hosts' packet filters do not see what their bridges carry, and so put no fragments
/// together before the guards have seen them.
fn unfiltered() -> Plan {
    let prepare = |testbed: &Testbed| {
        for host in testbed.hosts() {
            filter_bridges(host.netns(), false);
        }
    };
    Plan {
        prepare: Some(prepare),
        ..Plan::default()
    }
}

/// The same hosts without rules, which would see whole packets.
fn without_rules() -> Plan {
    Plan {
        without_rules: true,
        ..unfiltered()
    }
}

/// Frames with VXLAN of ours in two fragments, of which the first looks as if it were another's.
fn fragments(
    next_hop: frames::Mac,
    from: (&NetNs, Ipv4Addr),
    to: Ipv4Addr,
    inner: &[u8],
) -> Vec<Vec<u8>> {
    let own = mac(from.0, "eth0");
    let datagram = frames::udp(50_000, VXLAN, inner);
    let (header, rest) = datagram.split_at(8);
    let one = |number: usize| {
        let identification = 0x4711 + u16::try_from(number).unwrap();
        let part = |payload: &[u8], place| {
            let packet = frames::ipv4(from.1, to, UDP, payload);
            frames::fragment(packet, identification, place)
        };
        let mut first = part(header, MORE);
        first.extend(OTHER);
        first.extend([0; 24]);
        [first, part(rest, 1)].map(|packet| frames::ethernet(next_hop, own, IPV4, &packet))
    };
    (0..TIMES).flat_map(one).collect()
}

/// The attacker speaks as a container of the other node to its sibling.
async fn container_speaks_as_far(modes: &[Mode], plan: Plan, to: fn(&Scene) -> Ipv4Addr) {
    in_modes(modes, plan, async |scene| {
        let (far, sibling) = (scene.far(), scene.sibling());
        let attacker = scene.attacker.netns();
        let inner = Forged::proper(far.address(), sibling.address(), PORT, FORGED);
        let from = (attacker, scene.attacker.address());
        let frames = fragments(scene.gateway_mac(), from, to(scene), &inner.bytes());
        let listener = Listener::on(sibling.netns());
        PacketSocket::open(attacker, "eth0").send(attacker, &frames);
        sees_no(FORGED, &listener, |marker| {
            Scene::marker(attacker, sibling.address())(marker);
            Scene::marker(far.netns(), sibling.address())(marker);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_does_not_hide_vxlan_of_a_container_to_its_gateway() {
    container_speaks_as_far(MODES, unfiltered(), Scene::gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_does_not_hide_vxlan_of_a_container_where_programs_guard_alone() {
    container_speaks_as_far(HOST_MODES, without_rules(), Scene::gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_does_not_hide_vxlan_of_a_container_to_its_hosts_address() {
    container_speaks_as_far(MODES, unfiltered(), |scene| scene.home().address()).await;
}

/// Over the overlay, as a third node's container to one of the other node.
#[tokio::test(flavor = "multi_thread")]
async fn padding_does_not_hide_vxlan_of_a_container_to_another_nodes_gateway() {
    let plan = Plan {
        on_second_node: true,
        third_is_peer: true,
        ..unfiltered()
    };
    in_modes(MODES, plan, async |scene| {
        let (attacker, far) = (scene.attacker.netns(), scene.far());
        let inner = Forged::proper(crate::vxlan::THIRD, far.address(), PORT, FORGED);
        let from = (attacker, scene.attacker.address());
        let to = gateway_of(far.address());
        let frames = fragments(scene.gateway_mac(), from, to, &inner.bytes());
        let listener = Listener::on(far.netns());
        PacketSocket::open(attacker, "eth0").send(attacker, &frames);
        sees_no(FORGED, &listener, Scene::marker(attacker, far.address()));
    })
    .await;
}

async fn stranger_speaks_as_far(plan: Plan) {
    in_modes(HOST_MODES, plan, async |scene| {
        let (far, sibling) = (scene.far(), scene.sibling());
        let stranger = scene.pair.stranger();
        let inner = Forged::proper(far.address(), sibling.address(), PORT, FORGED);
        let next_hop = mac(scene.home().netns(), "eth0");
        let from = (stranger.netns(), stranger.address());
        let to = scene.home().address();
        let frames = fragments(next_hop, from, to, &inner.bytes());
        let listener = Listener::on(sibling.netns());
        PacketSocket::open(stranger.netns(), "eth0").send(stranger.netns(), &frames);
        let marker = Scene::marker(far.netns(), sibling.address());
        sees_no(FORGED, &listener, marker);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_does_not_hide_vxlan_of_a_stranger() {
    stranger_speaks_as_far(unfiltered()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_does_not_hide_vxlan_of_a_stranger_where_programs_guard_alone() {
    stranger_speaks_as_far(without_rules()).await;
}
