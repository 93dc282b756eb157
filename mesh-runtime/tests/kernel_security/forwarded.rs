//! A machine on the underlay that is no node, and routes a subnet of the mesh to its host: in
//! nothing but by `--routed-from`.

use std::net::Ipv4Addr;

use mesh_testbed::{Container, NetNs, PingOptions, ping, wait_reachable};

use crate::{
    frames::{self, IPV4},
    inside::{ip, mac, try_run},
    packet_socket::PacketSocket,
    pair::SOON,
    scene::{HOST_MODES, MODES, Plan, Scene, in_modes},
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

/// The stranger's route to all of the mesh.
fn route_to_mesh(scene: &Scene) -> &NetNs {
    let stranger = scene.pair.stranger().netns();
    let via = scene.home().address();
    ip(stranger, &format!("route add 10.42.0.0/16 via {via}"));
    stranger
}

/// The stranger sends to a container, whose own host does not forward it.
fn not_forwarded(scene: &Scene, source: Ipv4Addr, target: &Container) {
    let stranger = route_to_mesh(scene);
    let listener = Listener::on(target.netns());
    let packet = frames::udp_packet((source, 4444), (target.address(), PORT), FORGED);
    let next_hop = mac(scene.home().netns(), "eth0");
    let frame = frames::ethernet(next_hop, mac(stranger, "eth0"), IPV4, &packet);
    let socket = PacketSocket::open(stranger, "eth0");
    socket.send(stranger, &vec![frame; TIMES]);
    sees_no(FORGED, &listener, |marker| {
        Scene::marker(scene.other.netns(), target.address())(marker);
        Scene::marker(scene.home().netns(), target.address())(marker);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_routes_a_subnet_to_its_host_does_not_reach_a_container() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        not_forwarded(scene, scene.pair.stranger().address(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_reach_a_container_whose_port_was_made_while_the_runtime_was_dead() {
    in_modes(MODES, Plan::default(), async |scene| {
        not_forwarded(scene, scene.pair.stranger().address(), &scene.attacker);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_reach_a_container_as_one_of_a_peer() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        not_forwarded(scene, scene.far().address(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_reach_a_container_of_another_node_over_the_overlay() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        not_forwarded(scene, scene.pair.stranger().address(), scene.far());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_reach_a_container_of_another_node_as_a_sibling() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        not_forwarded(scene, scene.other.address(), scene.far());
    })
    .await;
}

/// The containers' answers come back, and so they reach the world as their host lets them.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_reaches_a_stranger_that_knows_the_way_back() {
    in_modes(MODES, Plan::default(), async |scene| {
        let stranger = scene.pair.stranger();
        route_to_mesh(scene);
        for container in [&scene.attacker, scene.sibling()] {
            let answers = ping(
                container.netns(),
                stranger.address(),
                PingOptions::default(),
            );
            assert!(answers.await.unwrap().is_complete());
        }
    })
    .await;
}

fn routed_from(cidrs: &[&str]) -> Plan {
    let option = |cidr: &&str| ["--routed-from".to_owned(), (*cidr).to_owned()];
    Plan {
        arguments: cidrs.iter().flat_map(option).collect(),
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lan_that_is_let_in_reaches_the_containers_of_the_node_that_it_routes_to() {
    let plan = routed_from(&["198.51.100.0/24", "192.0.2.4/32"]);
    in_modes(MODES, plan, async |scene| {
        let stranger = route_to_mesh(scene);
        for container in [scene.sibling(), &scene.attacker] {
            wait_reachable(stranger, container.address(), SOON)
                .await
                .unwrap();
        }
    })
    .await;
}

/// The LAN sends the whole cluster's range to one node, which forwards over the overlay.
#[tokio::test(flavor = "multi_thread")]
async fn a_lan_that_is_let_in_reaches_the_containers_of_every_node_by_one() {
    in_modes(HOST_MODES, routed_from(&["192.0.2.4/32"]), async |scene| {
        let stranger = route_to_mesh(scene);
        wait_reachable(stranger, scene.far().address(), SOON)
            .await
            .unwrap();
    })
    .await;
}

/// What is let in is that network, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_beside_the_lan_that_is_let_in_does_not_reach_a_container() {
    let plan = routed_from(&["198.51.100.0/24"]);
    in_modes(HOST_MODES, plan, async |scene| {
        not_forwarded(scene, scene.pair.stranger().address(), scene.sibling());
    })
    .await;
}

/// Two hosts with the same LAN behind them do not make its members containers.
#[tokio::test(flavor = "multi_thread")]
async fn a_lan_that_is_let_in_cannot_speak_as_a_container() {
    let plan = routed_from(&["192.0.2.4/32"]);
    in_modes(HOST_MODES, plan, async |scene| {
        not_forwarded(scene, scene.far().address(), scene.sibling());
    })
    .await;
}

/// A network of containers is nothing to let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_the_cluster_cannot_be_let_in() {
    let testbed = mesh_testbed::Testbed::builder().hosts(1).build().await;
    let testbed = testbed.unwrap();
    let host = &testbed.hosts()[0];
    for cidr in ["10.42.1.0/24", "no network", "192.0.2.1/24"] {
        let words = format!(
            "--routed-from {} --bpffs {} --state-dir {}",
            cidr.replace(' ', "-"),
            host.bpffs_dir().display(),
            host.runtime_state_dir().display()
        );
        let mut command = host.netns().command("timeout");
        command.args(["10", env!("CARGO_BIN_EXE_quilt-runtime")]);
        let output = command.args(words.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{cidr}: {said}");
        assert_ne!(output.status.code(), Some(124), "{cidr} was taken");
        assert!(said.contains("--routed-from"), "{cidr}: {said}");
        assert!(!said.contains("unexpected argument"), "{cidr}: {said}");
    }
    // Nothing was begun by any of them.
    let shown = try_run(host.netns(), "ip", "link show quilt0");
    assert!(!shown.status.success());
}
