//! The way in: by the ports that an endpoint is published by.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use mesh_client::mesh::PublishedPort;
use mesh_testbed::{NetNs, wait_until};

use crate::{
    conversation::{Echo, Server, client},
    inside::{filter_bridges, ip, run},
    pair::SOON,
    scene::{ALIVE, Mode, Plan, Scene, gateway_of, in_modes, kill},
    tables::{first_rules, nft},
    web::{Web, port},
};

const INSIDE: u16 = 80;
const OUTSIDE: u16 = 8080;

/// Publishes a container, and has a client see it by each of `doors` while the runtime lives, and after
/// it was killed. The server takes it for `whom`.
async fn reached(
    from: for<'a> fn(&'a Scene, &'a Web) -> &'a NetNs,
    doors: fn(&Scene) -> Vec<Ipv4Addr>,
    whom: fn(&Scene, Ipv4Addr) -> Ipv4Addr,
) {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let web = Web::attach(scene.home(), &[port("tcp", OUTSIDE, INSIDE, 1)]).await;
        let server = Server::on(web.netns(), INSIDE);
        let gateway = scene.gateway();
        let via = scene.home().address();
        let route = format!("route add {gateway} via {via}");
        ip(scene.pair.stranger().netns(), &route);
        let converse = async |when: &str| {
            for door in doors(scene) {
                let seen = server.sees(from(scene, &web), door, OUTSIDE).await;
                assert_eq!(seen, whom(scene, door), "by {door} {when}");
            }
        };
        converse("alive").await;
        kill(&scene.pair).await;
        converse("killed").await;
    })
    .await;
}

fn both(scene: &Scene) -> Vec<Ipv4Addr> {
    vec![scene.home().address(), scene.gateway()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_the_lan_by_a_client_that_keeps_its_address() {
    reached(
        |scene, _| scene.pair.stranger().netns(),
        both,
        |scene, _| scene.pair.stranger().address(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_its_own_host() {
    reached(|scene, _| scene.home().netns(), both, |_, door| door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_its_own_host_by_loopback_under_the_gateways_address() {
    reached(
        |scene, _| scene.home().netns(),
        |_| vec![Ipv4Addr::LOCALHOST],
        |scene, _| scene.gateway(),
    )
    .await;
}

/// Of two ports and both protocols, with datagrams that are longer than the MTU of the bridge.
#[tokio::test(flavor = "multi_thread")]
async fn ports_and_long_datagrams_pass_by_loopback_while_the_runtime_lives_and_when_it_is_killed() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let (home, gateway) = (scene.home(), scene.gateway());
        let ports = [
            port("tcp", OUTSIDE, INSIDE, 2),
            port("udp", OUTSIDE, INSIDE, 2),
        ];
        let web = Web::attach(home, &ports).await;
        let both = [0, 1].map(|offset| {
            let (tcp, udp) = (
                Server::on(web.netns(), INSIDE + offset),
                Echo::on(web.netns(), INSIDE + offset),
            );
            (OUTSIDE + offset, tcp, udp)
        });
        let client = client(home.netns());
        for killed in [false, true] {
            if killed {
                kill(&scene.pair).await;
            }
            for (outside, tcp, udp) in &both {
                let seen = tcp.sees(home.netns(), Ipv4Addr::LOCALHOST, *outside);
                assert_eq!(seen.await, gateway, "tcp {outside}, killed: {killed}");
                let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, *outside);
                for lengths in [(10, 10), (5_000, 10), (10, 5_000), (60_000, 60_000)] {
                    let seen = udp.sees_in_lengths(&client, to, lengths).await;
                    assert_eq!(seen, gateway, "udp {outside}, killed: {killed}");
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_loopback_is_reached_from_its_own_host_alone() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let one = PublishedPort {
            host_address: Ipv4Addr::LOCALHOST.to_string(),
            ..port("tcp", OUTSIDE, INSIDE, 1)
        };
        let web = Web::attach(home, &[one]).await;
        let server = Server::on(web.netns(), INSIDE);
        let seen = server.sees(home.netns(), Ipv4Addr::LOCALHOST, OUTSIDE);
        assert_eq!(seen.await, scene.gateway());
        for from in [
            home.netns(),
            scene.attacker.netns(),
            scene.pair.stranger().netns(),
        ] {
            assert!(!listens(from, home.address(), OUTSIDE), "{}", from.name());
        }
        for from in [home.netns(), scene.attacker.netns(), web.netns()] {
            assert!(!listens(from, scene.gateway(), OUTSIDE), "{}", from.name());
        }
        let own = Ipv4Addr::LOCALHOST;
        assert!(!listens(scene.attacker.netns(), own, OUTSIDE));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_another_node() {
    reached(
        |scene, _| scene.away().netns(),
        |scene| vec![scene.home().address()],
        |scene, _| scene.away().address(),
    )
    .await;
}

/// Another node's host speaks to a gateway from its own, which is of the mesh.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_another_node_by_the_gateway() {
    reached(
        |scene, _| scene.away().netns(),
        |scene| vec![scene.gateway()],
        |scene, _| scene.gateway(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_a_sibling_under_the_gateways_address() {
    reached(
        |scene, _| scene.attacker.netns(),
        both,
        |scene, _| scene.gateway(),
    )
    .await;
}

/// By the host's address it goes out masqueraded, as anywhere; by the gateway it stays inside the mesh.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_a_container_of_another_node() {
    reached(
        |scene, _| scene.far().netns(),
        both,
        |scene, door| match door == scene.gateway() {
            true => door,
            false => scene.away().address(),
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_the_container_itself() {
    reached(|_, web| web.netns(), both, |scene, _| scene.gateway()).await;
}

/// The same where the host's packet filter does not see what its bridges carry, as without the module
/// br_netfilter.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_from_a_sibling_and_the_container_itself_where_bridges_are_not_filtered()
{
    in_modes(ALIVE, Plan::default(), async |scene| {
        filter_bridges(scene.home().netns(), false);
        let web = Web::attach(scene.home(), &[port("tcp", OUTSIDE, INSIDE, 1)]).await;
        let server = Server::on(web.netns(), INSIDE);
        for from in [scene.attacker.netns(), web.netns()] {
            for door in both(scene) {
                let seen = server.sees(from, door, OUTSIDE).await;
                assert_eq!(seen, scene.gateway(), "by {door}");
            }
        }
    })
    .await;
}

/// As Docker does, whose drivers are told once they have made the interface, and again when another network comes.
#[tokio::test(flavor = "multi_thread")]
async fn ports_that_are_said_later_are_reached_until_they_are_taken_away() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let web = Web::attach(home, &[]).await;
        let server = Server::on(web.netns(), INSIDE);
        let stranger = scene.pair.stranger();
        let [wanted, other] = [OUTSIDE, OUTSIDE + 1].map(|it| [port("tcp", it, INSIDE, 1)]);
        for ports in [&wanted, &wanted, &other] {
            web.publish(home, ports).await.unwrap();
            let outside = u16::try_from(ports[0].host_port).unwrap();
            let seen = server.sees(stranger.netns(), home.address(), outside);
            assert_eq!(seen.await, stranger.address());
        }
        // Another's, and one that nobody attached.
        let rival = Web::attach(home, &wanted).await;
        let refused = web.publish(home, &wanted).await.unwrap_err().to_string();
        assert!(refused.contains(&OUTSIDE.to_string()), "{refused}");
        let vxlan = [port("udp", 4789, INSIDE, 1)];
        let refused = web.publish(home, &vxlan).await.unwrap_err().to_string();
        assert!(refused.contains("VXLAN"), "{refused}");
        rival.detach(home).await;
        let refused = rival.publish(home, &wanted).await.unwrap_err().to_string();
        assert!(refused.contains("attach it first"), "{refused}");
        web.publish(home, &[]).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_ports_keeps_its_offset() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let stranger = scene.pair.stranger().netns();
        let web = Web::attach(scene.home(), &[port("tcp", 10_000, 7000, 1000)]).await;
        for offset in [0, 1, 999] {
            let server = Server::on(web.netns(), 7000 + offset);
            server
                .sees(stranger, scene.home().address(), 10_000 + offset)
                .await;
        }
        assert!(!listens(stranger, scene.home().address(), 10_000));
    })
    .await;
}

fn listens(from: &NetNs, to: Ipv4Addr, port: u16) -> bool {
    from.run(|| TcpStream::connect((to, port)).is_ok()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_udp_is_reached_from_everywhere_and_answers_from_where_it_was_asked() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let web = Web::attach(scene.home(), &[port("udp", OUTSIDE, INSIDE, 1)]).await;
        let server = Echo::on(web.netns(), INSIDE);
        let (host, gateway) = (scene.home().address(), scene.gateway());
        let stranger = scene.pair.stranger();
        for (from, to, whom) in [
            (stranger.netns(), host, stranger.address()),
            (scene.home().netns(), host, host),
            (scene.home().netns(), gateway, gateway),
            (scene.home().netns(), Ipv4Addr::LOCALHOST, gateway),
            (scene.attacker.netns(), host, gateway),
            (scene.attacker.netns(), gateway, gateway),
            (scene.far().netns(), host, scene.away().address()),
            (scene.far().netns(), gateway, gateway),
            (web.netns(), host, gateway),
        ] {
            let seen = server
                .sees(&client(from), SocketAddrV4::new(to, OUTSIDE))
                .await;
            assert_eq!(seen, whom, "{} to {to}", from.name());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_one_address_of_the_host_is_reached_by_that_alone() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        ip(home.netns(), "address add 192.0.2.88/24 dev eth0");
        let one = PublishedPort {
            host_address: "192.0.2.88".to_owned(),
            ..port("tcp", OUTSIDE, INSIDE, 1)
        };
        let web = Web::attach(home, &[one]).await;
        let server = Server::on(web.netns(), INSIDE);
        for from in [scene.pair.stranger().netns(), home.netns()] {
            server
                .sees(from, Ipv4Addr::new(192, 0, 2, 88), OUTSIDE)
                .await;
            assert!(!listens(from, home.address(), OUTSIDE));
        }
        let seen = server
            .sees(
                scene.attacker.netns(),
                Ipv4Addr::new(192, 0, 2, 88),
                OUTSIDE,
            )
            .await;
        assert_eq!(seen, scene.gateway());
        assert!(!listens(scene.attacker.netns(), scene.gateway(), OUTSIDE));
    })
    .await;
}

/// An address that is not this host's is none of its doors, whoever names it.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_an_address_that_is_not_the_hosts_takes_nobodys_packets() {
    in_modes(&[Mode::Off], Plan::default(), async |scene| {
        let stranger = scene.pair.stranger();
        let anothers = PublishedPort {
            host_address: stranger.address().to_string(),
            ..port("tcp", OUTSIDE, INSIDE, 1)
        };
        let _web = Web::attach(scene.home(), &[anothers]).await;
        let server = Server::on(stranger.netns(), OUTSIDE);
        for from in [scene.attacker.netns(), scene.home().netns()] {
            server.sees(from, stranger.address(), OUTSIDE).await;
        }
    })
    .await;
}

/// A socket of the host's own, as an engine's that holds the port for the container, is in nobody's way.
#[tokio::test(flavor = "multi_thread")]
async fn of_loopback_no_other_address_is_a_door_and_no_listener_is_before_it() {
    in_modes(&[Mode::Off], Plan::default(), async |scene| {
        let home = scene.home().netns();
        let web = Web::attach(scene.home(), &[port("tcp", OUTSIDE, INSIDE, 1)]).await;
        let (held, inside) = (Server::on(home, OUTSIDE), Server::on(web.netns(), INSIDE));
        let stub = Ipv4Addr::new(127, 0, 0, 53);
        assert_eq!(held.sees(home, stub, OUTSIDE).await, Ipv4Addr::LOCALHOST);
        let seen = inside.sees(home, Ipv4Addr::LOCALHOST, OUTSIDE).await;
        assert_eq!(seen, scene.gateway());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_published_no_more_leads_nowhere() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let stranger = scene.pair.stranger().netns();
        let web = Web::attach(home, &[port("tcp", OUTSIDE, INSIDE, 1)]).await;
        let server = Server::on(web.netns(), INSIDE);
        server.sees(stranger, home.address(), OUTSIDE).await;
        web.detach(home).await;
        wait_until("a closed port", SOON, || async {
            let open = listens(stranger, home.address(), OUTSIDE);
            (!open).then_some(()).ok_or("it is open")
        })
        .await
        .unwrap();
    })
    .await;
}

/// Ports come and go as elements of maps: the rules stay as they are, and none is away for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn ports_come_and_go_without_a_rule_being_written() {
    in_modes(&[Mode::Fast], Plan::default(), async |scene| {
        let home = scene.home();
        let web = Web::attach(home, &[port("tcp", OUTSIDE, INSIDE, 1)]).await;
        let before = first_rules(home.netns(), "inet quilt_mesh");
        web.detach(home).await;
        for number in 1..10 {
            let ports = [port("tcp", OUTSIDE + number, INSIDE, 1000)];
            Web::attach(home, &ports).await.detach(home).await;
        }
        // The same port leads somewhere else.
        let web = Web::attach(home, &[port("tcp", OUTSIDE, INSIDE + 1, 1)]).await;
        let server = Server::on(web.netns(), INSIDE + 1);
        let stranger = scene.pair.stranger().netns();
        server.sees(stranger, home.address(), OUTSIDE).await;
        assert_eq!(first_rules(home.netns(), "inet quilt_mesh"), before);
    })
    .await;
}

/// What somebody else publishes by a rule of their own is theirs, with whose address it carries.
#[tokio::test(flavor = "multi_thread")]
async fn anothers_destination_nat_stays_as_it_is() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let web = Web::attach(home, &[port("udp", OUTSIDE, INSIDE, 1)]).await;
        let address = web.address();
        nft(
            home.netns(),
            &format!(
                "table ip operator {{
                    chain prerouting {{
                        type nat hook prerouting priority dstnat
                        udp dport {{ 9090, {OUTSIDE} }} fib daddr type local dnat to {address}:81
                    }}
                }}"
            ),
        );
        let server = Echo::on(web.netns(), 81);
        for (from, own) in [
            (
                scene.pair.stranger().netns(),
                scene.pair.stranger().address(),
            ),
            (scene.far().netns(), scene.far().address()),
        ] {
            // Where both want a port, it is theirs. Clients from outside keep their addresses; those of the mesh
            // are answered on both paths, and so are seen as the gateway.
            for port in [9090, OUTSIDE] {
                let (to, expected) = match from.name() == scene.far().netns().name() {
                    true => (gateway_of(address), gateway_of(address)),
                    false => (home.address(), own),
                };
                let to = SocketAddrV4::new(to, port);
                assert_eq!(server.sees(&client(from), to).await, expected, "{to}");
            }
        }
    })
    .await;
}

/// As Docker's rules: nothing is forwarded, and nothing between containers, but what is allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_beside_an_engines_nat_rules() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        for rule in [
            "-t nat -N DOCKER",
            "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            "-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
            "-t nat -A POSTROUTING -s 10.42.1.0/24 ! -o quilt0 -j MASQUERADE",
            "-t nat -A DOCKER -i quilt0 -j RETURN",
            "-t nat -A DOCKER ! -i quilt0 -p tcp --dport 9090 -j DNAT --to 10.42.1.2:81",
        ] {
            run(home.netns(), "iptables-legacy", rule);
        }
        let web = Web::attach(home, &[port("tcp", OUTSIDE, INSIDE, 1)]).await;
        let server = Server::on(web.netns(), INSIDE);
        let stranger = scene.pair.stranger();
        for (from, whom) in [
            (stranger.netns(), stranger.address()),
            (scene.attacker.netns(), scene.gateway()),
        ] {
            let seen = server.sees(from, home.address(), OUTSIDE).await;
            assert_eq!(seen, whom);
        }
    })
    .await;
}

/// A client that never pauses, and keeps its port: the kernel would lead it where it was led at first.
#[tokio::test(flavor = "multi_thread")]
async fn datagrams_find_the_container_that_takes_the_place_of_another() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let to = SocketAddrV4::new(home.address(), OUTSIDE);
        let to_loopback = SocketAddrV4::new(Ipv4Addr::LOCALHOST, OUTSIDE);
        let own = client(home.netns());
        let client = client(scene.pair.stranger().netns());
        let ports = [port("udp", OUTSIDE, INSIDE, 1)];
        // Before anything is published.
        client.send_to(b"nobody yet", to).unwrap();
        own.send_to(b"nobody yet", to_loopback).unwrap();
        for _ in 0..3 {
            let web = Web::attach(home, &ports).await;
            let server = Echo::on(web.netns(), INSIDE);
            let seen = server.sees(&client, to).await;
            assert_eq!(seen, scene.pair.stranger().address());
            let seen = server.sees(&own, to_loopback).await;
            assert_eq!(seen, scene.gateway());
            web.detach(home).await;
            // Also while it leads nowhere.
            client.send_to(b"nobody any more", to).unwrap();
            own.send_to(b"nobody any more", to_loopback).unwrap();
        }
    })
    .await;
}
