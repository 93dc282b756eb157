//! What the guards must not stop.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use mesh_testbed::{ContainerOptions, NetNs, PingOptions, ping, wait_reachable, wait_until};

use crate::{
    inside::{filter_bridges, ip, pinned},
    pair::{Forged, SOON, wait_counted},
    scene::{ALIVE, HOST_MODES, MODES, Plan, gateway_of, in_modes},
    tables::{TABLES, listed},
    witness::{Listener, PORT, sees},
};

const VXLAN: u16 = mesh_layout::VXLAN_PORT;

async fn answers(from: &NetNs, to: Ipv4Addr) {
    let report = ping(from, to, PingOptions::default()).await.unwrap();
    assert!(report.is_complete(), "{} to {to}: {report:?}", from.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_containers_reach_each_other() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (home, away) = (scene.home(), scene.away());
        let far_gateway = gateway_of(scene.far().address());
        for container in [&scene.attacker, scene.sibling(), &scene.other] {
            let (inside, address) = (container.netns(), container.address());
            // Its own host, by both of its addresses, and the other way round.
            wait_reachable(inside, scene.gateway(), SOON).await.unwrap();
            answers(inside, scene.gateway()).await;
            answers(inside, home.address()).await;
            answers(home.netns(), address).await;
            // The other host and its container.
            wait_reachable(inside, far_gateway, SOON).await.unwrap();
            answers(inside, far_gateway).await;
            answers(away.netns(), address).await;
            answers(inside, scene.far().address()).await;
            answers(scene.far().netns(), address).await;
        }
        answers(scene.attacker.netns(), scene.sibling().address()).await;
        answers(scene.sibling().netns(), scene.attacker.address()).await;
        answers(home.netns(), far_gateway).await;
        answers(away.netns(), scene.gateway()).await;
    })
    .await;
}

/// Sends to a port on which nobody listens until the kernel is told so, and returns what it is told. The answering kernel
/// owes no error to each datagram: it counts them (icmp(7), `icmp_ratelimit`).
fn refused(from: &NetNs, to: Ipv4Addr) -> std::io::Error {
    pinned(from, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect((to, 9)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let end = Instant::now() + SOON;
        loop {
            // What comes late is told to the next datagram.
            let told = socket.send(b"anybody?");
            let error = told.and_then(|_| socket.recv(&mut [0; 16])).unwrap_err();
            if error.kind() != ErrorKind::WouldBlock || Instant::now() > end {
                return error;
            }
        }
    })
}

/// ICMP errors about flows that exist are what applications learn from.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_may_say_that_nobody_listens() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, far) = (scene.attacker.address(), scene.far());
        let askers = [
            scene.home().netns(),
            scene.sibling().netns(),
            far.netns(),
            scene.away().netns(),
        ];
        for from in askers {
            let error = refused(from, attacker);
            let kind = error.kind();
            assert_eq!(
                kind,
                ErrorKind::ConnectionRefused,
                "{}: {error}",
                from.name()
            );
        }
    })
    .await;
}

/// An overlay of the containers' own, inside ours: to other containers, not to the nodes.
#[tokio::test(flavor = "multi_thread")]
async fn containers_may_send_vxlan_to_each_other() {
    in_modes(MODES, Plan::default(), async |scene| {
        let attacker = scene.attacker.netns();
        let inner = Forged::proper(
            scene.far().address(),
            scene.sibling().address(),
            PORT,
            b"an overlay in ours",
        );
        for target in [scene.sibling(), scene.far()] {
            let listener = Listener::on_port(target.netns(), VXLAN);
            sees(&inner.bytes(), &listener, |packet| {
                let to = std::net::SocketAddrV4::new(target.address(), VXLAN);
                crate::inside::datagram(attacker, to, packet);
            });
        }
    })
    .await;
}

/// Another engine's containers have an overlay of their own, whatever its number, also where
/// the host's packet filter sees what its bridges carry.
#[tokio::test(flavor = "multi_thread")]
async fn containers_of_another_bridge_may_send_vxlan_to_each_other() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let home = scene.home();
        filter_bridges(home.netns(), true);
        let address = "172.17.0.1/16".parse().unwrap();
        home.add_bridge("docker0", address, 1500).await.unwrap();
        let options = ContainerOptions {
            bridge: "docker0".into(),
            ..ContainerOptions::default()
        };
        let from = home.add_container_with(&options).await.unwrap();
        let to = home.add_container_with(&options).await.unwrap();
        wait_reachable(from.netns(), to.address(), SOON)
            .await
            .unwrap();
        if scene.mode != crate::scene::Mode::Killed {
            // The runtime knows the bridge by now.
            wait_until("the bridge in the rules", SOON, || async {
                let rules = listed(home.netns(), TABLES[0]).unwrap_or_default();
                rules.contains("\"docker0\"").then_some(()).ok_or(rules)
            })
            .await
            .unwrap();
        }
        let (far, sibling) = (scene.far().address(), scene.sibling().address());
        let inner = Forged::proper(far, sibling, PORT, b"an overlay of others");
        let listener = Listener::on_port(to.netns(), VXLAN);
        sees(&inner.bytes(), &listener, |packet| {
            let to = std::net::SocketAddrV4::new(to.address(), VXLAN);
            crate::inside::datagram(from.netns(), to, packet);
        });
    })
    .await;
}

/// What is no VXLAN of ours is a container's own affair, to whom it sends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_may_send_vxlan_of_another_network_to_a_host_outside() {
    in_modes(MODES, Plan::default(), async |scene| {
        let stranger = scene.pair.stranger();
        let via = scene.home().address();
        ip(
            stranger.netns(),
            &format!("route add 10.42.0.0/16 via {via}"),
        );
        let mut packet = Forged::proper(
            scene.attacker.address(),
            scene.sibling().address(),
            PORT,
            b"another network",
        );
        packet.vni = 101;
        let listener = Listener::on_port(stranger.netns(), VXLAN);
        sees(&packet.bytes(), &listener, |packet| {
            let to = std::net::SocketAddrV4::new(stranger.address(), VXLAN);
            crate::inside::datagram(scene.attacker.netns(), to, packet);
        });
    })
    .await;
}

/// VXLAN with another network's number is another overlay's, also with a host that is no peer.
#[tokio::test(flavor = "multi_thread")]
async fn another_overlay_of_the_host_on_the_same_port_goes_on() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let (home, stranger) = (scene.home(), scene.pair.stranger());
        for (host, peer, address) in [
            (home, stranger, "172.30.0.1/24"),
            (stranger, home, "172.30.0.2/24"),
        ] {
            let netns = host.netns();
            let words = format!(
                "link add vxlan200 type vxlan id 200 dstport {VXLAN} local {} remote {}",
                host.address(),
                peer.address()
            );
            ip(netns, &words);
            ip(netns, &format!("address add {address} dev vxlan200"));
            ip(netns, "link set vxlan200 up");
        }
        wait_reachable(home.netns(), Ipv4Addr::new(172, 30, 0, 2), SOON)
            .await
            .unwrap();
    })
    .await;
}

/// `--fast-path off` turns forwarding off, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_fast_path_the_programs_guard_and_carry_nothing() {
    in_modes(&[crate::scene::Mode::Off], Plan::default(), async |scene| {
        let before = crate::pair::counters(scene.home()).await;
        answers(scene.attacker.netns(), scene.far().address()).await;
        answers(scene.far().netns(), scene.sibling().address()).await;
        let after = crate::pair::counters(scene.home()).await;
        assert_eq!(before.fast_path, after.fast_path);
        let stranger = scene.pair.stranger().netns();
        let packet = Forged::proper(
            scene.far().address(),
            scene.sibling().address(),
            PORT,
            b"stranger",
        );
        let to = std::net::SocketAddrV4::new(scene.home().address(), VXLAN);
        crate::inside::datagram(stranger, to, &packet.bytes());
        wait_counted(scene.home(), "unknown_vtep", 1).await;
    })
    .await;
}

/// What a program drops is counted with its reason, which is how an operator finds out.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_forges_is_counted_with_its_reason() {
    use crate::frames::{ARP, IPV4, arp, ethernet, udp_packet};
    in_modes(ALIVE, Plan::default(), async |scene| {
        let attacker = scene.attacker.netns();
        let own = crate::inside::mac(attacker, "eth0");
        let sibling = crate::inside::mac(scene.sibling().netns(), "eth0");
        let gateway = (scene.gateway_mac(), scene.gateway());
        let to = (scene.far().address(), PORT);
        let from = |address| udp_packet((address, 4444), to, b"forged");
        let (own_address, sibling_address) = (scene.attacker.address(), scene.sibling().address());
        let vxlan = udp_packet(
            (own_address, 50_000),
            (gateway.1, VXLAN),
            &[8, 0, 0, 0, 0, 0, 100, 0],
        );
        let offer = udp_packet((own_address, 67), (Ipv4Addr::BROADCAST, 68), b"offer");
        let advert = {
            let source = crate::frames::link_local(own);
            let all = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let message = crate::frames::icmpv6(source, all, &crate::frames::router_advert());
            crate::frames::ipv6(source, all, crate::frames::ICMPV6, &message)
        };
        let claim = arp(
            crate::frames::ARP_REPLY,
            (own, gateway.1),
            (sibling, sibling_address),
        );
        let socket = crate::packet_socket::PacketSocket::open(attacker, "eth0");
        for (reason, frame) in [
            (
                "spoofed_address",
                ethernet(gateway.0, own, IPV4, &from(sibling_address)),
            ),
            (
                "spoofed_mac",
                ethernet(gateway.0, sibling, IPV4, &from(own_address)),
            ),
            ("gateway_claimed", ethernet(sibling, own, ARP, &claim)),
            ("container_vxlan", ethernet(gateway.0, own, IPV4, &vxlan)),
            (
                "router_advert",
                ethernet([0x33, 0x33, 0, 0, 0, 1], own, crate::frames::IPV6, &advert),
            ),
            (
                "dhcp_answer",
                ethernet(crate::frames::BROADCAST, own, IPV4, &offer),
            ),
        ] {
            socket.send(attacker, &[frame]);
            wait_counted(scene.home(), reason, 1).await;
        }
    })
    .await;
}

/// A node that has run for a while with the guards has nothing to complain about.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_node_has_no_problem() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        for host in [scene.home(), scene.away()] {
            let problems = host.status().await.unwrap().problems();
            assert_eq!(problems, [""; 0], "{}", host.name());
        }
    })
    .await;
}
