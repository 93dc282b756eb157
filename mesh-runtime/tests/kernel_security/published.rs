//! Ports of containers that a host publishes by destination NAT, as container engines do: the
//! guards know them from what nobody let in.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
};

use mesh_testbed::{NetNs, wait_until};

use crate::{
    inside::ip,
    pair::SOON,
    port::bind,
    scene::{HOST_MODES, Plan, Scene, in_modes},
    tables::nft,
};

const INSIDE: u16 = 80;
const OUTSIDE: u16 = 8080;

/// Connects, and has the server answer with more than fits into one packet.
fn converse(from: &NetNs, to: SocketAddrV4, server: &TcpListener) -> std::io::Result<()> {
    let mut client = from
        .run(|| TcpStream::connect_timeout(&SocketAddr::V4(to), SOON / 10))
        .unwrap()?;
    client.set_read_timeout(Some(SOON / 10))?;
    server.set_nonblocking(false)?;
    let (mut accepted, _) = server.accept()?;
    accepted.set_read_timeout(Some(SOON / 10))?;
    client.write_all(b"request")?;
    let mut request = [0; 7];
    accepted.read_exact(&mut request)?;
    accepted.write_all(&[7; 20_000])?;
    drop(accepted);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    match answer.len() {
        20_000 => Ok(()),
        length => Err(std::io::Error::other(format!("{length} bytes came"))),
    }
}

async fn reaches(from: &NetNs, to: Ipv4Addr, server: &TcpListener, port: u16) {
    let what = format!("an answer of {to}:{port} to {}", from.name());
    wait_until(&what, SOON, || async {
        converse(from, SocketAddrV4::new(to, port), server).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

fn server(netns: &NetNs, port: u16) -> TcpListener {
    bind(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// Publishes the sibling's port, as Docker's rules do: for whoever comes from elsewhere, for
/// the host itself, and back to the bridge under the host's address.
fn publish(scene: &Scene) -> TcpListener {
    let (host, container) = (scene.home().address(), scene.sibling().address());
    let gateway = scene.gateway();
    nft(
        scene.home().netns(),
        &format!(
            "table ip engine {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat
                    ip daddr {{ {host}, {gateway} }} tcp dport {OUTSIDE} dnat to {container}:{INSIDE}
                }}
                chain output {{
                    type nat hook output priority -100
                    ip daddr {{ {host}, {gateway} }} tcp dport {OUTSIDE} dnat to {container}:{INSIDE}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat
                    ip saddr 10.42.1.0/24 ip daddr {container} tcp dport {INSIDE} masquerade
                    ip saddr 10.42.1.0/24 oifname eth0 masquerade
                }}
            }}"
        ),
    );
    server(scene.sibling().netns(), INSIDE)
}

/// A published port is reached from `from` by the host's address on the underlay.
async fn by_the_hosts_address(from: fn(&Scene) -> &NetNs) {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let server = publish(scene);
        reaches(from(scene), scene.home().address(), &server, OUTSIDE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_the_lan() {
    by_the_hosts_address(|scene| scene.pair.stranger().netns()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_another_node() {
    by_the_hosts_address(|scene| scene.away().netns()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_its_own_host() {
    by_the_hosts_address(|scene| scene.home().netns()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_a_sibling_by_the_hosts_address() {
    by_the_hosts_address(|scene| scene.attacker.netns()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_the_container_itself_by_the_hosts_address() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let server = publish(scene);
        // Where the host filters what its bridges carry, the port has to give its own frames back.
        // Docker sets it for this very case.
        let port = scene.sibling().host_interface();
        ip(
            scene.home().netns(),
            &format!("link set {port} type bridge_slave hairpin on"),
        );
        reaches(
            scene.sibling().netns(),
            scene.home().address(),
            &server,
            OUTSIDE,
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_reached_from_the_lan_by_the_gateways_address() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let server = publish(scene);
        let (stranger, via) = (scene.pair.stranger().netns(), scene.home().address());
        let route = format!("route add {} via {via}", scene.gateway());
        ip(stranger, &route);
        reaches(stranger, scene.gateway(), &server, OUTSIDE).await;
    })
    .await;
}

/// What is published is that port of that address, and nothing beside it.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_published_port_nothing_is_reached_from_the_lan() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let server = publish(scene);
        let (stranger, via) = (scene.pair.stranger().netns(), scene.home().address());
        ip(stranger, &format!("route add 10.42.1.0/24 via {via}"));
        let target = SocketAddr::from((scene.sibling().address(), INSIDE));
        let direct = stranger
            .run(|| TcpStream::connect_timeout(&target, SOON / 20))
            .unwrap();
        assert!(direct.is_err(), "the container was reached past the NAT");
        reaches(stranger, via, &server, OUTSIDE).await;
    })
    .await;
}
