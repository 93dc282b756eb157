//! Podman's containers on a network of the driver `quilt`.

use std::{collections::BTreeSet, net::Ipv4Addr};

use mesh_testbed::{
    Daemon, DaemonOptions, Distribution, Engine, EngineContainer, EngineContainerOptions, Host,
    Signal, wait_reachable,
};

use crate::{
    leases::{container_links, holder, leases, wait_nothing_left},
    mesh::{
        End, SOON, assert_fast, bridge, counters, fast, mesh_of_two, needed, talk, wait_endpoint,
        wait_no_endpoint,
    },
    seen::{PORT, Server},
};

/// Podman of the distribution, and a network by the two commands that docs/CONTAINER_ENGINES.md tells operators.
async fn podman(host: &Host) -> Engine {
    let distribution = needed(Distribution::chosen());
    let engine = needed(Engine::podman_of(&distribution, host).await);
    let told = engine.install_quilt_netavark().unwrap();
    assert!(!told.contains("note"), "{told}");
    let made = engine.run(&["network", "create", "--driver", "quilt", "quilt"]);
    assert_eq!(made.unwrap().trim(), "quilt");
    engine
}

fn plain() -> EngineContainerOptions {
    EngineContainerOptions::default()
}

fn at(address: Ipv4Addr) -> EngineContainerOptions {
    EngineContainerOptions {
        address: Some(address),
        ..plain()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn containers_reach_each_other_by_the_fast_path_and_leave_nothing() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [bridge(first).await, bridge(second).await];
    let engines = [podman(first).await, podman(second).await];
    let web = engines[0].start("web", &plain()).unwrap();
    let options = EngineContainerOptions {
        mac: Some("02:00:5e:00:53:01".into()),
        aliases: vec!["data".into()],
        ..at(Ipv4Addr::new(10, 42, 2, 40))
    };
    let db = engines[1].start("db", &options).unwrap();
    assert_eq!(
        (Some(db.address), Some(&db.mac)),
        (options.address, options.mac.as_ref())
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

/// Both containers ping each other with a program of their own, and talk both ways.
async fn reach_each_other(
    one: (&Host, &Engine, &EngineContainer),
    other: (&Host, &Engine, &EngineContainer),
) {
    for (from, to) in [(one, other), (other, one)] {
        let address = to.2.address.to_string();
        let before = counters(from.0).await;
        let ping = ["ping", "-c", "5", "-i", "0.1", "-W", "2", &address];
        let said = from.1.exec(from.2, &ping).unwrap();
        assert!(said.contains("5 packets received"), "{said}");
        let after = counters(from.0).await;
        assert_fast(&before, &after);
        assert_eq!(fast(&after).tx_packets - fast(&before).tx_packets, 5);
    }
    let [one, other] = [one, other].map(|(host, engine, container)| End {
        host,
        inside: engine.entrance(container).unwrap(),
        address: container.address,
    });
    talk(&one, &other).await;
    talk(&other, &one).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_published_port_is_reached_from_everywhere_and_goes_with_its_container() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = podman(first).await;
    let options = EngineContainerOptions {
        publish: Some((8081, PORT)),
        ..plain()
    };
    let web = engine.start("web", &options).unwrap();
    let sibling = engine.start("sibling", &plain()).unwrap();
    let sibling = engine.entrance(&sibling).unwrap();
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
    let refused = engine.start("shop", &options).unwrap_err().to_string();
    assert!(refused.contains("8081"), "{refused}");
    engine.run(&["rm", "--force", "shop"]).unwrap();
    engine.remove(web).unwrap();
    let rules = first
        .netns()
        .command("nft")
        .args(["list", "ruleset"])
        .output();
    let rules = String::from_utf8(rules.unwrap().stdout).unwrap();
    assert!(!rules.contains("8081"), "{rules}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn podman_meshctl_and_quilt_cni_give_no_address_to_two() {
    let testbed = mesh_of_two().await;
    let [first, _] = testbed.hosts() else {
        unreachable!()
    };
    let engine = podman(first).await;
    let web = engine.start("web", &plain()).unwrap();
    engine.start_without_network("shop").unwrap();
    let pid = engine
        .run(&["inspect", "--format", "{{.State.Pid}}", "shop"])
        .unwrap();
    let netns = format!("/proc/{}/ns/net", pid.trim());
    let attach =
        |wish: &[&str]| engine.meshctl(&[&["attach", "shop", "--netns", &netns], wish].concat());
    let refused = attach(&["--address", &web.address.to_string()]).unwrap_err();
    assert!(refused.to_string().contains("is held by"), "{refused}");
    attach(&["--address", "10.42.1.40"]).unwrap();
    let refused = engine
        .start("late", &at(Ipv4Addr::new(10, 42, 1, 40)))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("10.42.1.40 is held by"), "{refused}");
    engine.run(&["rm", "--force", "late"]).unwrap();
    // Whoever speaks CNI on the same host: an address that is held, and any that is free.
    engine.install_quilt_cni().unwrap();
    let add = |name: &str, wished: &str| {
        engine.shell(&format!(
            r#"touch /run/netns/{name}; unshare --net=/run/netns/{name} true
export CNI_COMMAND=ADD CNI_CONTAINERID={name} CNI_NETNS=/run/netns/{name} CNI_IFNAME=eth0
echo '{{"cniVersion":"1.0.0","name":"quilt","engine":"nomad","runtimeConfig":{{"ips":[{wished}]}}}}' |
    /usr/local/libexec/cni/quilt-cni || true"#
        ))
    };
    let refused = add("beggar", &format!("\"{}\"", web.address)).unwrap();
    assert!(refused.contains("is held by podman/quilt/"), "{refused}");
    let added = add("job", "").unwrap();
    assert!(added.contains("\"address\":\"10.42.1."), "{added}");
    let leases = leases(first).await;
    let addresses: BTreeSet<_> = leases.iter().map(|it| &it.address).collect();
    assert_eq!((leases.len(), addresses.len()), (3, 3), "{leases:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn containers_begin_again_by_command_and_with_their_host() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let mut engine = podman(first).await;
    let far = second.add_container().await.unwrap();
    let named = Ipv4Addr::new(10, 42, 1, 77);
    for (name, options) in [("web", plain()), ("api", at(named))] {
        let before = engine.start(name, &options).unwrap();
        engine.run(&["restart", "--time", "0", name]).unwrap();
        let after = engine.container(name).unwrap();
        assert_ne!(after, before, "it has another namespace");
        // In its namespace, as a reload of Podman's rules does it, with the address of before.
        engine.run(&["network", "reload", name]).unwrap();
        let reloaded = engine.container(name).unwrap();
        assert_eq!(reloaded.address, after.address);
        needed(wait_reachable(far.netns(), reloaded.address, SOON).await);
    }
    assert_eq!(leases(first).await.len(), 2);
    engine.restart_host(first).await.unwrap();
    assert_eq!(leases(first).await, [], "of the boot before");
    engine.run(&["start", "web", "api"]).unwrap();
    for name in ["web", "api"] {
        let container = engine.container(name).unwrap();
        if name == "api" {
            assert_eq!(container.address, named);
        }
        needed(wait_reachable(far.netns(), container.address, SOON).await);
    }
    assert_eq!(leases(first).await.len(), 2);
    assert_eq!(container_links(first).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_container_that_begins_while_the_runtime_restarts_is_on_the_mesh() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = podman(first).await;
    let far = second.add_container().await.unwrap();
    needed(first.restart(Daemon::Runtime));
    let web = engine.start("web", &plain()).unwrap();
    needed(wait_reachable(far.netns(), web.address, SOON).await);
    assert_eq!(leases(first).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_container_whose_namespace_or_runtime_is_gone_is_removed_and_leaves_nothing() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = podman(first).await;
    let far = second.add_container().await.unwrap();
    let lost = engine.start("lost", &plain()).unwrap();
    engine.lose_namespace(&lost).unwrap();
    // netavark fails before it asks the plugin, and Podman with it, once: its own, whatever the driver.
    let fails_once = |command: &[&str]| {
        let refused = engine.run(command).unwrap_err().to_string();
        assert!(refused.contains("open container netns"), "{refused}");
    };
    fails_once(&["restart", "--time", "0", "lost"]);
    engine.run(&["start", "lost"]).unwrap();
    let again = engine.container("lost").unwrap();
    needed(wait_reachable(far.netns(), again.address, SOON).await);
    assert_eq!(leases(first).await.len(), 1, "of before nothing is left");
    engine.lose_namespace(&again).unwrap();
    let remove = ["rm", "--force", "--time", "0", "lost"];
    fails_once(&remove);
    engine.run(&remove).unwrap();
    wait_nothing_left(first).await;

    let [stays, goes] = ["stays", "goes"].map(|name| engine.start(name, &plain()).unwrap());
    needed(first.stop(Daemon::Runtime, Signal::SIGKILL, SOON).await);
    engine.remove(goes).unwrap();
    assert_eq!(container_links(first).await.len(), 1);
    let refused = engine.start("web", &plain()).unwrap_err().to_string();
    assert!(
        refused.contains("is quilt-runtime running") || refused.contains("not running"),
        "{refused}"
    );
    engine.run(&["rm", "--force", "web"]).unwrap();
    assert_eq!(container_links(first).await.len(), 1);
    needed(first.start_runtime(&DaemonOptions::new()).await);
    needed(first.wait_ready(SOON).await);
    needed(wait_reachable(far.netns(), stays.address, SOON).await);
    engine.remove(stays).unwrap();
    wait_nothing_left(first).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn what_podman_prunes_or_refuses_leaves_the_mesh_as_it_was() {
    let testbed = mesh_of_two().await;
    let [first, _] = testbed.hosts() else {
        unreachable!()
    };
    let engine = podman(first).await;
    let before = bridge(first).await;
    let web = engine.start("web", &plain()).unwrap();
    let pruned = engine.run(&["system", "prune", "--force"]).unwrap();
    assert!(!pruned.contains("quilt"), "it is in use: {pruned}");
    // A second network of ours is the same mesh; one of Podman's own is another.
    engine
        .run(&["network", "create", "--driver", "quilt", "second"])
        .unwrap();
    let refused = engine.run(&["network", "connect", "second", "web"]);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("another name of the same mesh"),
        "{refused}"
    );
    // Podman 5.4 believes that it is in there all the same, until it is told to take it out; 5.8 does not.
    if let Err(error) = engine.run(&["network", "disconnect", "second", "web"]) {
        assert!(error.to_string().contains("not connected"), "{error}");
    }
    engine.container("web").unwrap();
    engine
        .run(&["network", "connect", "podman", "web"])
        .unwrap();
    assert_eq!(leases(first).await.len(), 1);
    engine
        .run(&["network", "disconnect", "podman", "web"])
        .unwrap();
    for (options, word) in [
        (&["--internal"][..], "--internal"),
        (&["--ipv6"], "--ipv6"),
        (&["--subnet", "192.0.2.0/24"], "192.0.2.0/24"),
        (&["--opt", "isolate=true"], "isolate"),
        (&["--opt", "speed=9"], "speed"),
    ] {
        let create = [
            &["network", "create", "--driver", "quilt"],
            options,
            &["bad"],
        ]
        .concat();
        let refused = engine.run(&create).unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
    engine.remove(web).unwrap();
    let spare = [
        "system",
        "prune",
        "--force",
        "--filter",
        "label!=quilt-mesh",
    ];
    let pruned = engine.run(&spare).unwrap();
    assert!(!pruned.contains("quilt"), "it is spared: {pruned}");
    let pruned = engine.run(&["system", "prune", "--force"]).unwrap();
    assert!(
        pruned.contains("quilt"),
        "Podman removes the network: {pruned}"
    );
    assert_eq!(bridge(first).await, before);
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
    engine
        .run(&["network", "create", "--driver", "quilt", "quilt"])
        .unwrap();
    let again = engine.start("web", &plain()).unwrap();
    assert_eq!(
        holder(first, again.address).await.as_deref(),
        Some("podman quilt eth0")
    );
}
