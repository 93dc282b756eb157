//! Connections with containers of other nodes that somebody translates on their way: other bridges, the host
//! itself, and engines that publish ports or keep virtual addresses.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use mesh_testbed::{ContainerOptions, wait_until};

use crate::{
    conversation::{Server, v4},
    inside::run,
    pair::SOON,
    scene::{ALIVE, HOST_MODES, Plan, Scene, in_modes},
    tables::nft,
};

const PORT: u16 = 8000;
const PUBLISHED: u16 = 8080;
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// As Docker's own bridge: a network of its own, which goes out under the host's address.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_another_bridge_reaches_another_nodes_as_its_hosts_gateway() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let network: Ipv4Net = "172.17.0.1/16".parse().unwrap();
        home.add_bridge("docker0", network, 1500).await.unwrap();
        run(
            home.netns(),
            "iptables-nft",
            "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        );
        let options = ContainerOptions {
            bridge: "docker0".to_owned(),
            ..ContainerOptions::default()
        };
        let docker = home.add_container_with(&options).await.unwrap();
        let server = Server::on(scene.far().netns(), PORT);
        let seen = server
            .sees(docker.netns(), scene.far().address(), PORT)
            .await;
        assert_eq!(seen, scene.gateway());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_the_hosts_own_address_reaches_another_nodes_container_as_the_gateway() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let server = Server::on(scene.far().netns(), PORT);
        let to = SocketAddrV4::new(scene.far().address(), PORT);
        let from = SocketAddrV4::new(scene.home().address(), 0);
        let netns = scene.home().netns();
        let seen = wait_until("an answer", SOON, || async {
            let seen = server.try_converse_from(netns, from, to);
            seen.map_err(|error| error.to_string())
        });
        assert_eq!(v4(seen.await.unwrap()), scene.gateway());
    })
    .await;
}

/// Has `scene`'s node lead what comes for an address and port elsewhere, as an engine does.
fn leads(scene: &Scene, from: Ipv4Addr, port: u16, to: Ipv4Addr) {
    nft(
        scene.home().netns(),
        &format!(
            "table ip engine {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat
                    ip daddr {from} tcp dport {port} dnat to {to}:{PORT}
                }}
                chain output {{
                    type nat hook output priority -100
                    ip daddr {from} tcp dport {port} dnat to {to}:{PORT}
                }}
            }}"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_an_engine_publishes_is_reached_from_other_nodes_and_siblings_by_the_gateway() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        leads(scene, scene.gateway(), PUBLISHED, scene.attacker.address());
        let server = Server::on(scene.attacker.netns(), PORT);
        for client in [
            scene.far().netns(),
            scene.sibling().netns(),
            scene.away().netns(),
        ] {
            let seen = server.sees(client, scene.gateway(), PUBLISHED).await;
            assert_eq!(seen, scene.gateway(), "by {}", client.name());
        }
        // By its own address it sees who asks.
        let (server, far) = (Server::on(scene.attacker.netns(), PORT + 1), scene.far());
        let seen = server
            .sees(far.netns(), scene.attacker.address(), PORT + 1)
            .await;
        assert_eq!(seen, far.address());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_address_that_the_host_leads_to_another_nodes_container_answers() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        leads(scene, VIRTUAL, PUBLISHED, scene.far().address());
        let server = Server::on(scene.far().netns(), PORT);
        let seen = server
            .sees(scene.attacker.netns(), VIRTUAL, PUBLISHED)
            .await;
        assert_eq!(seen, scene.gateway());
    })
    .await;
}
