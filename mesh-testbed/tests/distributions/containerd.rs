//! containerd of another distribution on two hosts, and its containers by `ctr`.

use mesh_testbed::{
    Daemon, DaemonOptions, Distribution, Engine, EngineContainer, EngineContainerOptions, Host,
    Signal,
};

use crate::{
    calls,
    leases::{container_links, holder, leases, wait_nothing_left},
    mesh::{
        End, SOON, assert_fast, bridge, counters, fast, mesh_of_two, needed, talk, wait_endpoint,
        wait_no_endpoint,
    },
};

/// containerd of the distribution with `quilt-cni`, installed as docs/CONTAINER_ENGINES.md says.
pub(crate) async fn containerd(host: &Host) -> Engine {
    let distribution = needed(Distribution::chosen());
    let engine = needed(Engine::containerd_of(&distribution, host).await);
    install_quilt_cni(&engine);
    engine
}

/// Installs `quilt-cni`, and does what is to be done besides.
pub(crate) fn install_quilt_cni(engine: &Engine) {
    let told = engine.install_quilt_cni().unwrap();
    // What it is to do besides: commands at the end of a line, or before a comma.
    let links = told.lines().filter_map(|line| line.split_once("ln -s "));
    let links: Vec<&str> = links
        .filter_map(|(_, link)| link.split(',').next())
        .collect();
    assert!(links[0].contains("portmap"), "{told}");
    for link in links {
        engine.shell(&format!("ln -s {link}")).unwrap();
    }
    let told = engine.install_quilt_cni().unwrap();
    assert!(!told.contains("ln -s"), "{told}");
}

/// Whether an engine is containerd 2 or newer, which knows version 1.1 of CNI.
pub(crate) fn is_new(engine: &Engine) -> bool {
    let settings = engine.shell("containerd config default").unwrap();
    settings.lines().any(|line| line == "version = 3")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn containers_of_ctr_reach_each_other_by_the_fast_path_and_leave_nothing() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [bridge(first).await, bridge(second).await];
    let engines = [containerd(first).await, containerd(second).await];
    calls::note(&engines[0]);
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
    assert_eq!(calls::noted(&engines[0]), ["ADD NETNS"]);
    assert_eq!([bridge(first).await, bridge(second).await], before);
}

/// Both containers ping each other with a program of their own, and talk both ways.
pub(crate) async fn reach_each_other(
    one: (&Host, &Engine, &EngineContainer),
    other: (&Host, &Engine, &EngineContainer),
) {
    for (from, to) in [(one, other), (other, one)] {
        let before = counters(from.0).await;
        let address = to.2.address.to_string();
        let ping = ["ping", "-c", "5", "-i", "0.1", "-W", "2", &address];
        let said = from.1.exec(from.2, &ping).unwrap();
        assert!(said.contains("5 packets received"), "{said}");
        let after = counters(from.0).await;
        assert_fast(&before, &after);
        assert_eq!(fast(&after).tx_packets - fast(&before).tx_packets, 5);
        assert_eq!(fast(&after).rx_packets - fast(&before).rx_packets, 5);
    }
    let [one, other] = [one, other].map(|(host, engine, container)| End {
        host,
        inside: engine.entrance(container).unwrap(),
        address: container.address,
    });
    talk(&one, &other).await;
    talk(&other, &one).await;
}

/// The arguments of a container in the foreground, which ends at once.
fn once(group: &str) -> Vec<&str> {
    let options = ["run", "--rm", "--cni", "--snapshotter", "native"];
    let what = [
        "--cgroup",
        group,
        "localhost/busybox:latest",
        "once",
        "ip",
        "-4",
        "-o",
        "addr",
    ];
    [&options[..], &what].concat()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn a_container_of_ctr_in_the_foreground_gives_its_address_back_when_it_ends() {
    let testbed = mesh_of_two().await;
    let [first, _] = testbed.hosts() else {
        unreachable!()
    };
    let engine = containerd(first).await;
    calls::note(&engine);
    let group = format!("{}/once", engine.control_group());
    let said = engine.run(&once(&group)).unwrap();
    assert!(said.contains("10.42.1.2/24"), "{said}");
    assert_eq!(calls::noted(&engine), ["ADD NETNS", "DEL "]);
    assert_eq!(leases(first).await, []);
    assert_eq!(container_links(first).await, [""; 0]);

    needed(first.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    let refusal = engine.run(&once(&group)).unwrap_err().to_string();
    assert!(refusal.contains("is quilt-runtime running"), "{refusal}");
    assert_eq!(container_links(first).await, [""; 0]);
    if !is_new(&engine) {
        // What it made of it so far is still there.
        engine.run(&["tasks", "delete", "--force", "once"]).unwrap();
        engine.run(&["containers", "delete", "once"]).unwrap();
    }
    needed(first.start_runtime(&DaemonOptions::new()).await);
    needed(first.wait_ready(SOON).await);
    let said = engine.run(&once(&group)).unwrap();
    assert!(said.contains("inet 10.42.1."), "{said}");
}
