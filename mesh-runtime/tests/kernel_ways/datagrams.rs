//! Datagrams by published ports: those that come in fragments, and flows that have nothing to do with a port
//! that is published meanwhile.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use mesh_testbed::NetNs;

use crate::{
    conversation::{Echo, client},
    inside::{filter_bridges, ip},
    port::bind,
    scene::{ALIVE, Plan, Scene, in_modes, kill},
    tables::nft,
    web::{Web, port},
};

const INSIDE: u16 = 54;
const OUTSIDE: u16 = 8054;

/// More than two packets of the overlay.
const LONG: usize = 3000;

/// Requests and answers of which only one is long, and both.
const LENGTHS: [(usize, usize); 3] = [(9, LONG), (LONG, 9), (LONG, LONG)];

/// Has everybody ask by every address of the host.
async fn everybody_asks(scene: &Scene, web: &Web, server: &Echo, when: &str) {
    let (host, gateway) = (scene.home().address(), scene.gateway());
    let (stranger, away) = (scene.pair.stranger(), scene.away());
    for (from, to, whom) in [
        (stranger.netns(), host, stranger.address()),
        (scene.home().netns(), host, host),
        (scene.home().netns(), gateway, gateway),
        (scene.attacker.netns(), host, gateway),
        (scene.attacker.netns(), gateway, gateway),
        (web.netns(), host, gateway),
        (web.netns(), gateway, gateway),
        (away.netns(), host, away.address()),
        (away.netns(), gateway, gateway),
        (scene.far().netns(), host, away.address()),
        (scene.far().netns(), gateway, gateway),
    ] {
        let client = client(from);
        let to = SocketAddrV4::new(to, OUTSIDE);
        for lengths in LENGTHS {
            let seen = server.sees_in_lengths(&client, to, lengths).await;
            assert_eq!(seen, whom, "{} to {to} {when}", from.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_datagrams_pass_a_published_port_from_everywhere_by_every_address_of_the_host() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let web = Web::attach(home, &[port("udp", OUTSIDE, INSIDE, 1)]).await;
        let server = Echo::on(web.netns(), INSIDE);
        for filtered in [true, false] {
            filter_bridges(home.netns(), filtered);
            let when = format!("with bridges filtered: {filtered}");
            everybody_asks(scene, &web, &server, &when).await;
        }
        kill(&scene.pair).await;
        everybody_asks(scene, &web, &server, "killed").await;
    })
    .await;
}

/// An engine that is told nothing gives containers the MTU of its cards: some of the fragments fit the overlay, and
/// are carried by the programs, and some do not.
#[tokio::test(flavor = "multi_thread")]
async fn long_datagrams_of_a_container_with_a_larger_mtu_than_the_overlays_pass_a_published_port() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let far = scene.far();
        let veth = far.host_interface();
        ip(scene.away().netns(), &format!("link set {veth} mtu 1500"));
        ip(far.netns(), "link set eth0 mtu 1500");
        let web = Web::attach(scene.home(), &[port("udp", OUTSIDE, INSIDE, 1)]).await;
        let server = Echo::on(web.netns(), INSIDE);
        let to = SocketAddrV4::new(scene.gateway(), OUTSIDE);
        let client = client(far.netns());
        for lengths in LENGTHS {
            let seen = server.sees_in_lengths(&client, to, lengths).await;
            assert_eq!(seen, scene.gateway());
        }
    })
    .await;
}

/// As any host lets answers in and nothing else.
fn let_answers_alone_in(netns: &NetNs, port: u16) {
    nft(
        netns,
        &format!(
            "table ip operator {{
                chain input {{
                    type filter hook input priority filter
                    udp sport {port} ct state != established drop
                }}
            }}"
        ),
    );
}

/// Whoever lets in nothing but answers loses none of them for its length.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_to_the_host_itself_is_one_to_its_packet_filter() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let_answers_alone_in(home.netns(), INSIDE);
        for container in [&scene.attacker, scene.far()] {
            let server = Echo::on(container.netns(), INSIDE);
            let to = SocketAddrV4::new(container.address(), INSIDE);
            let client = client(home.netns());
            let seen = server.sees_in_lengths(&client, to, (9, LONG)).await;
            assert_eq!(seen, scene.gateway());
        }
    })
    .await;
}

const QUERIES: u16 = 5353;

/// A query that has been sent, and waits for its answer.
struct Query {
    client: UdpSocket,
    server: UdpSocket,
    server_address: SocketAddrV4,
}

impl Query {
    fn sent(from: &NetNs, to: &NetNs, address: Ipv4Addr) -> Self {
        let server = bind(to, || UdpSocket::bind((address, QUERIES)));
        let query = Self {
            client: client(from),
            server,
            server_address: SocketAddrV4::new(address, QUERIES),
        };
        query
            .client
            .send_to(b"query", query.server_address)
            .unwrap();
        query
    }

    fn gets_its_answer(&self) {
        let (_, seen) = self.server.recv_from(&mut [0; 64]).unwrap();
        self.server.send_to(b"answer", seen).unwrap();
        let answer = self.client.recv_from(&mut [0; 64]);
        let from = answer.unwrap_or_else(|error| panic!("{}: {error}", self.server_address));
        assert_eq!(from.1, self.server_address.into());
    }
}

/// Only what would go another way now begins anew: not what asked others by a port of that number.
#[tokio::test(flavor = "multi_thread")]
async fn flows_to_others_by_a_port_of_the_same_number_outlive_its_publishing() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let (home, stranger) = (scene.home(), scene.pair.stranger());
        let_answers_alone_in(home.netns(), QUERIES);
        // A stub resolver, as systemd's.
        let stub = Ipv4Addr::new(127, 0, 0, 53);
        let queries = [
            Query::sent(home.netns(), stranger.netns(), stranger.address()),
            Query::sent(home.netns(), home.netns(), stub),
            Query::sent(home.netns(), scene.far().netns(), scene.far().address()),
            Query::sent(home.netns(), scene.other.netns(), scene.other.address()),
        ];
        let _web = Web::attach(home, &[port("udp", QUERIES, 53, 1)]).await;
        for query in queries {
            query.gets_its_answer();
        }
    })
    .await;
}
