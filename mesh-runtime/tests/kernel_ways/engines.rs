//! Container engines whose rules know one network of containers, and no other nodes of it.

use std::net::SocketAddrV4;

use mesh_testbed::{NetNs, wait_until};

use crate::{
    conversation::{self, Echo, Server, client},
    inside::run,
    pair::SOON,
    scene::{HOST_MODES, Mode, Plan, Scene, in_modes},
    tables::nft,
};

const PORT: u16 = 8000;

/// Containers of both nodes reach each other, and see each other's addresses.
async fn keeps_its_address(scene: &Scene) {
    for (client, server) in [
        (&scene.attacker, scene.far()),
        (scene.far(), &scene.attacker),
        (scene.sibling(), scene.far()),
    ] {
        let listening = Server::on(server.netns(), PORT);
        let seen = listening.sees(client.netns(), server.address(), PORT).await;
        assert_eq!(seen, client.address());
        let listening = Echo::on(server.netns(), PORT);
        let socket = conversation::client(client.netns());
        let to = SocketAddrV4::new(server.address(), PORT);
        assert_eq!(listening.sees(&socket, to).await, client.address());
    }
    for (host, container) in [(scene.away(), &scene.attacker), (scene.home(), scene.far())] {
        let listening = Server::on(container.netns(), PORT);
        listening
            .sees(host.netns(), container.address(), PORT)
            .await;
    }
}

async fn has_no_say(rule: fn(&NetNs, &str)) {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        rule(scene.home().netns(), "10.42.1.0/24");
        rule(scene.away().netns(), "10.42.2.0/24");
        keeps_its_address(scene).await;
    })
    .await;
}

/// As Podman's own networks, and CNI's `"ipMasq": true`.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_masquerades_by_iptables_legacy_has_no_say_inside_the_mesh() {
    has_no_say(|netns, subnet| {
        let rule = format!("-t nat -A POSTROUTING -s {subnet} ! -d {subnet} -j MASQUERADE");
        run(netns, "iptables-legacy", &rule);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_masquerades_by_iptables_nft_has_no_say_inside_the_mesh() {
    has_no_say(|netns, subnet| {
        let rule = format!("-t nat -A POSTROUTING -s {subnet} ! -d {subnet} -j MASQUERADE");
        run(netns, "iptables-nft", &rule);
    })
    .await;
}

/// As netavark with its nftables driver, and whoever masquerades all that leaves.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_masquerades_by_nftables_has_no_say_inside_the_mesh() {
    has_no_say(|netns, subnet| {
        nft(
            netns,
            &format!(
                "table inet netavark {{
                    chain postrouting {{
                        type nat hook postrouting priority srcnat
                        ip saddr {subnet} ip daddr != {{ {subnet}, 224.0.0.0/4 }} masquerade
                        oifname != lo masquerade
                    }}
                }}"
            ),
        );
    })
    .await;
}

/// One whose chain comes before ours all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_masqueraded_inside_the_mesh_all_the_same_is_a_problem_that_names_its_cure() {
    in_modes(&[Mode::Off], Plan::default(), async |scene| {
        nft(
            scene.home().netns(),
            "table ip early {
                chain postrouting {
                    type nat hook postrouting priority -190
                    ip saddr 10.42.1.0/24 ip daddr != 10.42.1.0/24 masquerade
                }
            }",
        );
        let (from, far) = (scene.attacker.netns(), scene.far());
        wait_until("a problem that names the cure", SOON, || async {
            let to = SocketAddrV4::new(far.address(), PORT);
            client(from).send_to(b"masqueraded", to).unwrap();
            let problems = scene.home().status().await.unwrap().problems();
            let cure = "conntrack -D -s 10.42.1.0/24 -d 10.42.0.0/16";
            let named = problems.iter().any(|problem| {
                problem.contains("ip daddr != 10.42.0.0/16") && problem.contains(cure)
            });
            named.then_some(()).ok_or(format!("{problems:?}"))
        })
        .await
        .unwrap();
        // Not about what is allowed: the other node has nothing to complain about.
        let problems = scene.away().status().await.unwrap().problems();
        assert_eq!(problems, [""; 0]);
    })
    .await;
}
