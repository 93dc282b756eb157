//! Compose with Docker on the mesh: with a network that is there already, and with one of its own.

use mesh_testbed::{Engine, wait_reachable};

use crate::{
    docker_driver::docker,
    leases::{container_links, leases},
    mesh::{SOON, mesh_of_two},
};

/// Two services in a network.
fn file(engine: &Engine, network: &str) -> String {
    let group = engine.control_group();
    let service = |name: &str| {
        format!(
            "  {name}:\n    image: localhost/busybox:latest\n    pull_policy: never\n    command: sleep 1000000\n    \
             cgroup_parent: {group}\n    cap_add: [NET_RAW]\n    stop_grace_period: 0s\n"
        )
    };
    format!(
        "services:\n{}{}networks:\n  default:\n{network}",
        service("web"),
        service("db")
    )
}

async fn comes_and_goes(network: &str, name: &str) {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = docker(first).await;
    let far = second.add_container().await.unwrap();
    let text = file(&engine, network);
    let compose = |words: &str| {
        engine.shell(&format!(
            "mkdir -p /run/shop; cat >/run/shop/compose.yaml <<'END'\n{text}END\n\
             docker compose --project-directory /run/shop {words} 2>&1"
        ))
    };
    for _ in 0..2 {
        let told = compose("up --detach").unwrap();
        assert!(told.contains("shop-web-1"), "{told}");
        engine
            .run(&["exec", "shop-web-1", "ping", "-c", "1", "-W", "5", "db"])
            .unwrap();
        let format = format!("{{{{(index .NetworkSettings.Networks \"{name}\").IPAddress}}}}");
        for container in ["shop-web-1", "shop-db-1"] {
            let address = engine.run(&["inspect", "--format", &format, container]);
            let address = address.unwrap().trim().parse().unwrap();
            wait_reachable(far.netns(), address, SOON).await.unwrap();
        }
        assert_eq!(leases(first).await.len(), 2);
        compose("restart --timeout 0").unwrap();
        assert_eq!(leases(first).await.len(), 2);
        compose("down --timeout 0").unwrap();
        assert_eq!(
            (leases(first).await, container_links(first).await),
            (vec![], vec![])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_compose_project_in_a_network_that_is_there_comes_and_goes() {
    comes_and_goes("    external: true\n    name: quilt\n", "quilt").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_compose_project_with_a_network_of_its_own_comes_and_goes() {
    comes_and_goes(
        "    driver: quilt\n    ipam:\n      driver: quilt\n",
        "shop_default",
    )
    .await;
}
