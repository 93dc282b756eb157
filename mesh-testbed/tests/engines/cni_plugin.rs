//! Containers of Podman and of containerd on a network of `quilt-cni`.

use std::{collections::BTreeSet, net::Ipv4Addr};

use mesh_testbed::{Engine, EngineContainerOptions, wait_reachable};

use crate::{
    containers::reach_each_other,
    leases::{container_links, holder, leases, wait_nothing_left},
    mesh::{SOON, bridge, mesh_of_two, needed, wait_endpoint, wait_no_endpoint},
    seen::{PORT, Server},
};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_podman_over_quilt_cni_reach_each_other_by_the_fast_path_and_leave_nothing() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [bridge(first).await, bridge(second).await];
    let engines = [
        needed(Engine::podman_over_quilt_cni(first).await),
        needed(Engine::podman_over_quilt_cni(second).await),
    ];
    let web = engines[0].start("web", &EngineContainerOptions::default());
    let web = web.unwrap();
    let options = EngineContainerOptions {
        address: Some(Ipv4Addr::new(10, 42, 2, 40)),
        mac: Some("02:00:5e:00:53:01".into()),
        aliases: vec!["data".into()],
        ..EngineContainerOptions::default()
    };
    let db = engines[1].start("db", &options).unwrap();
    assert_eq!(
        (db.address, &db.mac),
        (options.address.unwrap(), options.mac.as_ref().unwrap())
    );
    for (host, container) in [(first, &web), (second, &db)] {
        let holder = holder(host, container.address).await;
        assert_eq!(holder.as_deref(), Some("podman quilt eth0"));
        wait_endpoint(host, container.address, Some(&container.mac)).await;
    }
    let names = &leases(second).await[0].names;
    for name in ["db", "data"] {
        assert!(names.iter().any(|it| it == name), "{name}: {names:?}");
    }
    reach_each_other((first, &engines[0], &web), (second, &engines[1], &db)).await;

    for (host, engine, container) in [(first, &engines[0], web), (second, &engines[1], db)] {
        let address = container.address;
        engine.remove(container).unwrap();
        // By the plugin, not by whoever sweeps later.
        assert_eq!(leases(host).await, []);
        assert_eq!(container_links(host).await, [""; 0]);
        wait_no_endpoint(host, address).await;
        assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    }
    assert_eq!([bridge(first).await, bridge(second).await], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_containerd_over_quilt_cni_reach_podmans_by_the_fast_path_and_leave_nothing()
{
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [bridge(first).await, bridge(second).await];
    let engines = [
        needed(Engine::containerd(first).await),
        needed(Engine::podman_over_quilt_cni(second).await),
    ];
    let options = EngineContainerOptions::default();
    let [web, db] = engines
        .each_ref()
        .map(|engine| engine.start("web", &options).unwrap());
    let holder = holder(first, web.address).await;
    assert_eq!(holder.as_deref(), Some("containerd quilt eth0"));
    wait_endpoint(first, web.address, Some(&web.mac)).await;
    wait_endpoint(second, db.address, Some(&db.mac)).await;
    reach_each_other((first, &engines[0], &web), (second, &engines[1], &db)).await;

    for (host, engine, container) in [(first, &engines[0], web), (second, &engines[1], db)] {
        let address = container.address;
        engine.remove(container).unwrap();
        // `ctr` tells no plugin of it.
        wait_nothing_left(host).await;
        wait_no_endpoint(host, address).await;
        assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    }
    assert_eq!([bridge(first).await, bridge(second).await], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_podman_publishes_over_quilt_cni_is_reached_as_over_bridge() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let options = EngineContainerOptions {
        publish: Some((8081, PORT)),
        ..EngineContainerOptions::default()
    };
    let web = engine.start("web", &options).unwrap();
    let sibling = engine.start("sibling", &EngineContainerOptions::default());
    let sibling = engine.entrance(&sibling.unwrap()).unwrap();
    let db = second.add_container().await.unwrap();
    wait_endpoint(first, web.address, Some(&web.mac)).await;
    wait_endpoint(second, db.address(), None).await;

    let outside = testbed.control();
    let gateway = first.bridge_address(mesh_testbed::BRIDGE).await.unwrap();
    let server = Server::on(&engine.entrance(&web).unwrap(), PORT);
    for (client, whom) in [
        (outside.netns().entrance(), outside.address()),
        (db.netns().entrance(), second.address()),
        (first.netns().entrance(), first.address()),
        (sibling, gateway.addr()),
    ] {
        let seen = server.sees(&client, (first.address(), 8081)).await;
        assert_eq!(seen, whom, "{}", client.name());
    }
    engine.remove(web).unwrap();
    let rules = first.netns().command("iptables-save").output().unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    assert!(!rules.contains("8081"), "{rules}");
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_over_quilt_cni_and_meshctl_give_no_address_to_two() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let far = second.add_container().await.unwrap();
    let options = EngineContainerOptions::default();
    let mut given = BTreeSet::new();
    for turn in ["1", "2", "3"] {
        let theirs = engine.start(&format!("web{turn}"), &options).unwrap();
        let shop = format!("shop{turn}");
        engine.start_without_network(&shop).unwrap();
        let ours = attach(&engine, &shop, &[]).unwrap();
        for address in [theirs.address, ours] {
            assert!(given.insert(address), "{address} was given to two");
            wait_reachable(far.netns(), address, SOON).await.unwrap();
        }
    }
    // Nor to whoever asks for it by name, on either way.
    let [first_given, second_given, ..] = *given.iter().collect::<Vec<_>>() else {
        unreachable!()
    };
    for wish in [first_given, second_given] {
        engine.start_without_network("beggar").unwrap();
        let refusal = attach(&engine, "beggar", &["--address", &wish.to_string()]);
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains(&wish.to_string()), "{refusal}");
        engine
            .run(&["rm", "--force", "--time", "0", "beggar"])
            .unwrap();
        let wish = EngineContainerOptions {
            address: Some(*wish),
            ..EngineContainerOptions::default()
        };
        let refusal = engine.start("beggar", &wish).unwrap_err().to_string();
        assert!(refusal.contains("is held by"), "{refusal}");
        engine
            .run(&["rm", "--force", "--time", "0", "beggar"])
            .unwrap();
    }
    assert_eq!(leases(first).await.len(), given.len());
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
}

/// Attaches a container without a network by `meshctl` and returns its address.
fn attach(engine: &Engine, name: &str, options: &[&str]) -> mesh_testbed::Result<Ipv4Addr> {
    let pid = engine.run(&["inspect", "--format", "{{.State.Pid}}", name])?;
    let netns = format!("/proc/{}/ns/net", pid.trim());
    let said = engine.meshctl(&[&["attach", name, "--netns", &netns], options].concat())?;
    // "shop: 10.42.1.3/24 on eth0 via 10.42.1.1, behind qmd20639b918a8"
    let address = said.split([' ', '/']).nth(1).unwrap_or_default();
    Ok(address.parse().unwrap_or_else(|_| panic!("{said}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_podmans_networks_takes_no_bridge_from_containers_that_run() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let far = second.add_container().await.unwrap();
    engine.start_without_network("shop").unwrap();
    let shop = attach(&engine, "shop", &[]).unwrap();
    let options = EngineContainerOptions::default();
    let web = engine.start("web", &options).unwrap();
    engine.run(&["stop", "--time", "0", "web"]).unwrap();
    assert_eq!(leases(first).await.len(), 1, "shop's alone");
    engine.run(&["start", "web"]).unwrap();
    let pruned = engine.run(&["system", "prune", "--force"]).unwrap();
    assert!(!pruned.contains("quilt"), "it is in use: {pruned}");
    engine.remove(web).unwrap();

    let before = bridge(first).await;
    let pruned = engine.run(&["system", "prune", "--force"]).unwrap();
    assert!(
        pruned.contains("quilt"),
        "Podman removes its file: {pruned}"
    );
    assert_eq!(bridge(first).await, before);
    wait_reachable(far.netns(), shop, SOON).await.unwrap();
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
}

/// As podman-compose does without pods: one container after the other, each with the names of its service.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_podmans_containers_over_quilt_cni_has_its_names_and_goes_as_it_came() {
    let testbed = mesh_of_two().await;
    let [first, _] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let services = ["web", "db", "cache"];
    let mut containers = Vec::new();
    for service in services {
        let options = EngineContainerOptions {
            aliases: vec![service.to_owned(), format!("{service}.shop")],
            ..EngineContainerOptions::default()
        };
        let name = format!("shop_{service}_1");
        containers.push(engine.start(&name, &options).unwrap());
    }
    for (container, service) in containers.iter().zip(services) {
        let leases = leases(first).await;
        let address = container.address.to_string();
        let lease = leases.iter().find(|it| it.address == address).unwrap();
        let alias = format!("{service}.shop");
        for name in [service, &alias] {
            assert!(lease.names.iter().any(|it| it == name), "{lease:?}");
        }
        let next = containers
            [(containers.iter().position(|it| it == container).unwrap() + 1) % containers.len()]
        .address;
        let said = engine.exec(
            container,
            &["ping", "-c", "1", "-W", "2", &next.to_string()],
        );
        assert!(said.unwrap().contains("1 packets received"));
    }
    engine
        .run(&["rm", "--all", "--force", "--time", "0"])
        .unwrap();
    assert_eq!(leases(first).await, []);
    assert_eq!(container_links(first).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_podmans_has_another_network_beside_quilt_but_not_quilt_twice() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let far = second.add_container().await.unwrap();
    wait_endpoint(second, far.address(), None).await;
    let options = EngineContainerOptions::default();
    engine.start("both", &options).unwrap();
    // Either may be the first. The other one's default route comes before ours where both have one.
    for change in [
        &["connect", "podman", "both"][..],
        &["disconnect", "quilt", "both"],
        &["connect", "quilt", "both"],
    ] {
        engine.run(&[&["network"], change].concat()).unwrap();
        if change[0] == "disconnect" {
            assert_eq!(leases(first).await, []);
            continue;
        }
        let both = engine.container("both").unwrap();
        let reached = wait_reachable(far.netns(), both.address, SOON).await;
        reached.unwrap();
        let out = engine.exec(&both, &["ip", "route", "get", "198.51.100.7"]);
        let out = out.unwrap();
        assert!(out.contains("via 10.88.0.1"), "{change:?}: {out}");
    }

    engine.add_quilt_network("second").unwrap();
    let refusal = engine.run(&["network", "connect", "second", "both"]);
    let refusal = refusal.unwrap_err().to_string();
    assert!(
        refusal.contains("another name of the same mesh"),
        "{refusal}"
    );
    // Podman believes that it is in there all the same, until it is told to take it out.
    engine
        .run(&["network", "disconnect", "second", "both"])
        .unwrap();
    assert_eq!(leases(first).await.len(), 1);
    let both = engine.container("both").unwrap();
    let reached = wait_reachable(far.netns(), both.address, SOON).await;
    reached.unwrap();
}
