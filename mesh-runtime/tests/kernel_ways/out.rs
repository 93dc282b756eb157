//! The way out: under the address of the container's host to whoever does not know the mesh, and under its
//! own to everybody else.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
};

use mesh_testbed::{NetNs, wait_until};

use crate::{
    conversation::{Echo, Server},
    inside::{as_nobody, ip, run, send_or_refused, udp_socket},
    pair::{Forged, SOON},
    scene::{HOST_MODES, MODES, Plan, Scene, gateway_of, in_modes},
    tables::nft,
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

const OUTSIDE: u16 = 8000;

/// The stranger's route to all of the mesh.
fn route_to_mesh(scene: &Scene) {
    let via = scene.home().address();
    let stranger = scene.pair.stranger().netns();
    ip(stranger, &format!("route add 10.42.0.0/16 via {via}"));
}

/// Whom the stranger, who is outside, takes a client for.
async fn stranger_sees(scene: &Scene, client: &NetNs) -> Ipv4Addr {
    let stranger = scene.pair.stranger();
    let server = Server::on(stranger.netns(), OUTSIDE);
    server.sees(client, stranger.address(), OUTSIDE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_the_outside_under_the_address_of_its_host() {
    in_modes(MODES, Plan::default(), async |scene| {
        for container in [&scene.attacker, scene.sibling()] {
            let seen = stranger_sees(scene, container.netns()).await;
            assert_eq!(seen, scene.home().address());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_another_nodes_own_address_under_that_of_its_host() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let away = scene.away();
        let server = Server::on(away.netns(), OUTSIDE);
        let from = scene.attacker.netns();
        let seen = server.sees(from, away.address(), OUTSIDE).await;
        assert_eq!(seen, scene.home().address());
    })
    .await;
}

/// Under that of a published one it would take the answers that are meant for the container behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_out_under_none_of_the_ports_that_are_published_below_the_ephemeral_ones()
{
    in_modes(MODES, Plan::default(), async |scene| {
        let (inside, stranger) = (scene.attacker.netns(), scene.pair.stranger());
        let source = SocketAddrV4::new(scene.attacker.address(), 5353);
        let to = SocketAddrV4::new(stranger.address(), OUTSIDE);
        stranger_sees(scene, inside).await;
        let server = Server::on(stranger.netns(), OUTSIDE);
        let tcp = server.try_converse_from(inside, source, to).unwrap();
        let echo = Echo::on(stranger.netns(), OUTSIDE);
        let bound = inside.run(|| UdpSocket::bind(source)).unwrap().unwrap();
        let udp = echo.hears(&bound, to).unwrap();
        for seen in [tcp, udp] {
            assert_eq!(seen.ip(), scene.home().address());
            assert!((32_768..=60_999).contains(&seen.port()), "{seen}");
        }
    })
    .await;
}

/// Another node takes nothing from outside its peers' subnets back: the underlay's own network may be let in.
#[tokio::test(flavor = "multi_thread")]
async fn another_node_is_reached_under_the_hosts_address_also_where_its_network_is_let_in() {
    let plan = Plan {
        arguments: vec!["--routed-from".into(), "192.0.2.0/24".into()],
        ..Plan::default()
    };
    in_modes(HOST_MODES, plan, async |scene| {
        let away = scene.away();
        let server = Server::on(away.netns(), OUTSIDE);
        let from = scene.attacker.netns();
        let seen = server.sees(from, away.address(), OUTSIDE).await;
        assert_eq!(seen, scene.home().address());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_the_mesh_a_container_keeps_its_address() {
    in_modes(MODES, Plan::default(), async |scene| {
        let own = scene.attacker.address();
        for (netns, address) in [
            (scene.sibling().netns(), scene.sibling().address()),
            (scene.far().netns(), scene.far().address()),
            (scene.away().netns(), gateway_of(scene.far().address())),
            (scene.home().netns(), scene.gateway()),
            (scene.home().netns(), scene.home().address()),
        ] {
            let server = Server::on(netns, OUTSIDE);
            let seen = server.sees(scene.attacker.netns(), address, OUTSIDE).await;
            assert_eq!(seen, own, "at {address}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_masquerading_the_outside_sees_containers_under_their_own_addresses() {
    let plan = Plan {
        arguments: vec!["--masquerade".into(), "off".into()],
        ..Plan::default()
    };
    in_modes(HOST_MODES, plan, async |scene| {
        route_to_mesh(scene);
        let seen = stranger_sees(scene, scene.attacker.netns()).await;
        assert_eq!(seen, scene.attacker.address());
    })
    .await;
}

/// Its routers know the way back, and which container it was is worth knowing.
#[tokio::test(flavor = "multi_thread")]
async fn a_lan_that_is_let_in_sees_containers_under_their_own_addresses() {
    let plan = Plan {
        arguments: vec!["--routed-from".into(), "192.0.2.4/32".into()],
        ..Plan::default()
    };
    in_modes(HOST_MODES, plan, async |scene| {
        route_to_mesh(scene);
        let seen = stranger_sees(scene, scene.attacker.netns()).await;
        assert_eq!(seen, scene.attacker.address());
    })
    .await;
}

/// Also where its address is one of the node's subnet, and from the port that it has chosen.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_says_itself_goes_out_as_it_is() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        route_to_mesh(scene);
        let (home, stranger) = (scene.home(), scene.pair.stranger());
        let server = Server::on(stranger.netns(), OUTSIDE);
        let to = SocketAddrV4::new(stranger.address(), OUTSIDE);
        for (port, address) in [(40_001, home.address()), (40_002, scene.gateway())] {
            let source = SocketAddrV4::new(address, port);
            let seen = server.try_converse_from(home.netns(), source, to).unwrap();
            assert_eq!(seen, source.into());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_host_has_changed_address_a_container_goes_out_under_the_new_one() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let home = scene.home();
        let from = scene.attacker.netns();
        assert_eq!(stranger_sees(scene, from).await, home.address());
        let new = Ipv4Addr::new(192, 0, 2, 77);
        home.change_address(new).await.unwrap();
        assert_eq!(stranger_sees(scene, from).await, new);
    })
    .await;
}

/// Who has a rule of their own for the way out has their way.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_rule_for_the_way_out_comes_before_ours() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let home = scene.home().netns();
        ip(home, "address add 192.0.2.99/24 dev eth0");
        nft(
            home,
            "table ip operator {
                chain postrouting {
                    type nat hook postrouting priority srcnat
                    ip saddr 10.42.0.0/16 ip daddr != 10.42.0.0/16 snat to 192.0.2.99
                }
            }",
        );
        let seen = stranger_sees(scene, scene.attacker.netns()).await;
        assert_eq!(seen, Ipv4Addr::new(192, 0, 2, 99));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engines_masquerading_rule_beside_ours_does_no_harm() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        for program in ["iptables-legacy", "iptables-nft"] {
            let rule = "-t nat -A POSTROUTING -s 10.42.1.0/24 ! -o quilt0 -j MASQUERADE";
            run(scene.home().netns(), program, rule);
        }
        let seen = stranger_sees(scene, scene.attacker.netns()).await;
        assert_eq!(seen, scene.home().address());
    })
    .await;
}

const NARROW: libc::c_int = 1200;

/// Beyond a router, which the control plane's namespace plays, over a narrow cable.
fn beyond_a_narrow_cable(scene: &Scene) -> Ipv4Addr {
    let router = scene.pair.testbed.control().netns();
    let stranger = scene.pair.stranger().netns();
    let words = format!("link add narrow0 mtu {NARROW} type veth peer name far0");
    ip(router, &words);
    let netns = stranger.path().display().to_string();
    ip(router, &format!("link set far0 netns {netns}"));
    ip(router, "address add 192.168.50.1/24 dev narrow0");
    ip(router, "link set narrow0 up");
    router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    ip(stranger, "address add 192.168.50.2/24 dev far0");
    ip(stranger, &format!("link set far0 mtu {NARROW} up"));
    ip(stranger, "route add 192.0.2.2/32 via 192.168.50.1");
    let via = scene.pair.testbed.control().address();
    let route = format!("route add 192.168.50.0/24 via {via}");
    ip(scene.home().netns(), &route);
    Ipv4Addr::new(192, 168, 50, 2)
}

fn option(socket: &UdpSocket, name: libc::c_int) -> libc::c_int {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option is an int, and its length is that of one.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    value
}

/// A socket whose datagrams are not to be cut up on the way.
fn in_one_piece(netns: &NetNs, to: SocketAddrV4) -> UdpSocket {
    let connected = netns.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        Ok::<_, io::Error>(socket)
    });
    let socket = connected.unwrap().unwrap();
    let how = libc::IP_PMTUDISC_DO;
    // SAFETY: the option is an int, and its length is that of one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const how).cast(),
            size_of_val(&how) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    socket
}

/// What a router says of a packet under the host's address comes to the container that it is about.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_learns_how_narrow_the_way_to_the_outside_is() {
    in_modes(MODES, Plan::default(), async |scene| {
        let beyond = beyond_a_narrow_cable(scene);
        let server = Server::on(scene.pair.stranger().netns(), OUTSIDE);
        let seen = server.sees(scene.attacker.netns(), beyond, OUTSIDE).await;
        assert_eq!(seen, scene.home().address());
        let socket = in_one_piece(scene.attacker.netns(), SocketAddrV4::new(beyond, 9));
        wait_until("the narrow cable's MTU", SOON, || async {
            // Too long, once it is known.
            let _ = socket.send(&[0; 1400]);
            match option(&socket, libc::IP_MTU) {
                NARROW => Ok(()),
                other => Err(format!("{other}")),
            }
        })
        .await
        .unwrap();
    })
    .await;
}

/// Sends VXLAN of our network as the attacker, in the name of its sibling.
fn forge(scene: &Scene, to: Ipv4Addr, packet: &Forged) {
    let bytes = packet.bytes();
    as_nobody(scene.attacker.netns(), || {
        let socket = udp_socket(Ipv4Addr::UNSPECIFIED);
        for _ in 0..TIMES {
            let to = SocketAddrV4::new(to, mesh_layout::VXLAN_PORT);
            send_or_refused(&socket, &bytes, to);
        }
    });
}

/// Under the host's address it would be a peer to the other node.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_goes_out_under_the_address_of_its_host_is_no_peer_to_another_node() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, far) = (scene.attacker.netns(), scene.far());
        let away = scene.away();
        // A second address of the other node, which is no peer's.
        ip(away.netns(), "address add 203.0.113.9/32 dev lo");
        let route = format!("route add 203.0.113.9/32 via {}", away.address());
        ip(scene.home().netns(), &route);
        // It does go out under it.
        let server = Server::on(away.netns(), OUTSIDE);
        let seen = server.sees(attacker, away.address(), OUTSIDE).await;
        assert_eq!(seen, scene.home().address());
        let listener = Listener::on(far.netns());
        let packet = Forged::proper(scene.sibling().address(), far.address(), PORT, FORGED);
        for to in [away.address(), Ipv4Addr::new(203, 0, 113, 9)] {
            forge(scene, to, &packet);
        }
        sees_no(FORGED, &listener, Scene::marker(attacker, far.address()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_send_vxlan_of_ours_to_a_stranger_under_the_address_of_its_host() {
    in_modes(MODES, Plan::default(), async |scene| {
        let stranger = scene.pair.stranger();
        let listener = Listener::on_port(stranger.netns(), mesh_layout::VXLAN_PORT);
        let packet = Forged::proper(
            scene.sibling().address(),
            scene.far().address(),
            PORT,
            FORGED,
        );
        forge(scene, stranger.address(), &packet);
        let from = scene.home().netns();
        sees_no(FORGED, &listener, |marker| {
            let to = SocketAddrV4::new(stranger.address(), mesh_layout::VXLAN_PORT);
            crate::inside::datagram(from, to, marker);
        });
    })
    .await;
}
