//! Docker, Podman and containerd beside each other on one host: each by its own way onto the mesh, and one list of addresses.

use std::{collections::BTreeSet, net::Ipv4Addr};

use mesh_testbed::{
    Distribution, Engine, EngineContainer, EngineContainerOptions, Entrance, Host, wait_until,
};

use crate::{
    containerd::install_quilt_cni,
    leases::{container_links, leases},
    mesh::{SOON, mesh_of_two, needed, wait_endpoint},
    seen::{PORT, Server},
};

/// So many containers each engine starts at once.
const CROWD: usize = 100;

/// Docker and Podman, each with its network.
async fn two(host: &Host) -> [Engine; 2] {
    let distribution = needed(Distribution::chosen());
    let podman = needed(Engine::podman_of(&distribution, host).await);
    podman.install_quilt_netavark().unwrap();
    let made = podman.run(&["network", "create", "--driver", "quilt", "quilt"]);
    assert_eq!(made.unwrap().trim(), "quilt");
    let docker = needed(podman.docker_beside().await);
    [docker, podman]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn containers_of_docker_podman_and_containerd_on_two_hosts_all_reach_each_other() {
    let testbed = mesh_of_two().await;
    let mut containers: Vec<(Entrance, EngineContainer)> = Vec::new();
    let mut engines = Vec::new();
    for host in testbed.hosts() {
        let [docker, podman] = two(host).await;
        let containerd = needed(docker.containerd_beside().await);
        install_quilt_cni(&containerd);
        for engine in [docker, podman, containerd] {
            let container = engine.start("web", &EngineContainerOptions::default());
            let container = container.unwrap();
            wait_endpoint(host, container.address, Some(&container.mac)).await;
            containers.push((engine.entrance(&container).unwrap(), container));
            engines.push(engine);
        }
        let owners: BTreeSet<String> = leases(host)
            .await
            .into_iter()
            .filter_map(|lease| Some(lease.owner?.engine))
            .collect();
        let expected = ["containerd", "docker", "podman"].map(str::to_owned);
        assert_eq!(owners, expected.into());
    }
    for (inside, container) in &containers {
        let server = Server::on(inside, PORT);
        for (client, other) in &containers {
            let seen = server.sees(client, (container.address, PORT)).await;
            assert_eq!(seen, other.address, "at {}", container.address);
        }
    }
    for host in testbed.hosts() {
        assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_hundred_containers_of_docker_and_of_podman_at_once_share_no_address_and_leave_nothing() {
    let testbed = mesh_of_two().await;
    let host = &testbed.hosts()[0];
    let engines = two(host).await;
    let group = engines[0].control_group();
    // Each starts in a process of its own, eight of each engine at a time.
    let all = |commands: [&str; 2]| {
        let each = engines.iter().zip(commands).map(|(engine, command)| {
            let engine = engine.name();
            format!("seq {CROWD} | xargs -P 8 -I N {engine} {command} >/dev/null & ")
        });
        each.collect::<String>() + "wait"
    };
    let start = format!(
        "run --detach --name cN --network quilt --cgroup-parent {group} localhost/busybox:latest sleep 1000000"
    );
    let start = all([&start, &start]);
    // Podman would give each ten seconds to end by itself.
    let remove = all(["rm --force cN", "rm --force --time 0 cN"]);
    for _ in 0..2 {
        engines[1].shell(&start).unwrap();
        let mut addresses = BTreeSet::new();
        for engine in &engines {
            for number in 1..=CROWD {
                let container = engine.container(&format!("c{number}")).unwrap();
                assert!(
                    addresses.insert(container.address),
                    "{container:?} is not alone"
                );
            }
        }
        let leased: BTreeSet<Ipv4Addr> = leases(host)
            .await
            .iter()
            .map(|lease| lease.address.parse().unwrap())
            .collect();
        assert_eq!(leased, addresses);
        let status = host.status().await.unwrap();
        assert_eq!(status.endpoints.len(), 2 * CROWD);
        assert_eq!(status.problems(), [""; 0]);
        engines[1].shell(&remove).unwrap();
        wait_until("the end of all", SOON, async || {
            let (leases, links) = (leases(host).await, container_links(host).await);
            match leases.is_empty() && links.is_empty() {
                true => Ok(()),
                false => Err(format!("{leases:?} {links:?}")),
            }
        })
        .await
        .unwrap();
    }
}
