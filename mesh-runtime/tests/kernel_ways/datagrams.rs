//! Datagrams by published ports that come in fragments.

use std::net::SocketAddrV4;

use mesh_testbed::NetNs;

use crate::{
    conversation::{Echo, client},
    inside::{filter_bridges, ip},
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

/// The host's own answers of a container, whatever their length, are answers to its packet filter.
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
