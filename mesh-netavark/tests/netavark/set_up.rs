//! `setup`.

use std::{
    collections::BTreeSet,
    fs::File,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use mesh_client::{
    Maintenance,
    mesh::{AllocateAddressRequest, Owner},
};
use mesh_testbed::{Daemon, DaemonOptions, NetavarkContainer, Signal};
use serde_json::json;

use crate::{
    engine::{address, assert_says, engine, network, set_up, wish},
    mesh::{
        SOON, client, counters, endpoint, fast, five_of_five, ip, leases, links, mesh_of,
        namespace, needed, only_lease, owner_of, wait_leases,
    },
    remains::Remains,
};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_two_hosts_reach_each_other_by_the_fast_path_and_leave_nothing() {
    let testbed = mesh_of(2).await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [Remains::of(first).await, Remains::of(second).await];
    let (web, db) = (namespace("web").await, namespace("db").await);
    let wished = Ipv4Addr::new(10, 42, 2, 40);
    let web_is = NetavarkContainer::new("web", &web, &network(first, "mesh").await)
        .option("aliases", json!(["shop", "no name"]));
    let db_is = NetavarkContainer::new("db", &db, &network(second, "mesh").await)
        .option("static_ips", json!([wished]))
        .option("static_mac", "02:00:5e:00:53:01");
    let status = engine(first).setup(&web_is).await.unwrap();
    let lease = only_lease(first).await;
    let of_web = format!("podman/mesh/{}/eth0", web_is.id());
    assert_eq!(owner_of(&lease), of_web);
    assert_eq!(lease.names, ["web", "shop"]);
    let shown = &status["interfaces"]["eth0"];
    assert_eq!(
        shown["subnets"][0]["ipnet"],
        format!("{}/24", lease.address)
    );
    assert_eq!(shown["subnets"][0]["gateway"], "10.42.1.1");
    let there = endpoint(first, lease.address.parse().unwrap()).await;
    assert_eq!(shown["mac_address"], there.unwrap().mac);
    let status = engine(second).setup(&db_is).await.unwrap();
    assert_eq!(address(&status, "eth0"), wished);
    assert_eq!(
        status["interfaces"]["eth0"]["mac_address"],
        "02:00:5e:00:53:01"
    );
    needed(mesh_testbed::wait_reachable(&web, wished, SOON).await);
    let counted = counters(first).await;
    five_of_five(&web, wished).await;
    let (sent, received) = fast(&counted, &counters(first).await);
    assert!(sent >= 5 && received >= 5, "{sent} and {received}");
    five_of_five(&db, lease.address.parse().unwrap()).await;
    assert!(ip(&web, "route show").contains("default via 10.42.1.1"));

    engine(first).teardown(&web_is).await.unwrap();
    engine(second).teardown(&db_is).await.unwrap();
    assert_eq!(
        (links(&web), links(&db)),
        (vec!["lo".to_owned()], vec!["lo".to_owned()])
    );
    before[0].wait_again(first).await;
    before[1].wait_again(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_networks_options_are_those_of_its_containers() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut wish = wish(host, "mesh");
    wish["options"]["mtu"] = "1400".into();
    wish["options"]["no_default_route"] = "true".into();
    let made = engine(host).create(&wish).await.unwrap();
    let web = namespace("web").await;
    let web_is = NetavarkContainer::new("web", &web, &made).option("interface_name", "net7");
    let status = engine(host).setup(&web_is).await.unwrap();
    assert!(ip(&web, "link show net7").contains("mtu 1400"));
    let routes = ip(&web, "route show");
    assert!(
        !routes.contains("default") && routes.contains("10.42.0.0/16"),
        "{routes}"
    );
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    let lease = only_lease(host).await;
    assert_eq!(lease.address, address(&status, "net7").to_string());
    engine(host).teardown(&web_is).await.unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_published_by_the_runtime_and_those_it_cannot_are_refused_with_nothing_left() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    let web = namespace("web").await;
    let web_is = NetavarkContainer::new("web", &web, &made)
        .publish(8081, 80, "tcp")
        .publish(5353, 53, "tcp,udp");
    // As Podman does, so that nobody else takes it.
    let held = host.netns().run(|| TcpListener::bind("0.0.0.0:8081"));
    let _held = held.unwrap().unwrap();
    set_up(host, &web_is).await;
    let ports = only_lease(host).await.ports;
    let mut ports: Vec<_> = ports
        .iter()
        .map(|it| (it.host_port, it.container_port, it.protocol.as_str()))
        .collect();
    ports.sort_unstable();
    assert_eq!(
        ports,
        [(5353, 53, "tcp"), (5353, 53, "udp"), (8081, 80, "tcp")]
    );
    let before = Remains::of(host).await;
    let shop = namespace("shop").await;
    let shop_is = NetavarkContainer::new("shop", &shop, &made);
    for (bad, words) in [
        (shop_is.clone().publish(8081, 80, "tcp"), &["8081"][..]),
        (shop_is.clone().publish(8082, 80, "sctp"), &["sctp", "8082"]),
        (shop_is.clone().publish(0, 80, "tcp"), &["65535"]),
    ] {
        assert_says(engine(host).setup(&bad).await, words);
        assert_eq!(links(&shop), ["lo"]);
        before.wait_again(host).await;
    }
    engine(host).teardown(&web_is).await.unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_is_there_stays_as_it_is_and_another_network_is_refused() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    let web = namespace("web").await;
    let web_is = NetavarkContainer::new("web", &web, &made);
    set_up(host, &web_is).await;
    let before = Remains::of(host).await;
    let again = engine(host).setup(&web_is).await;
    assert_says(again, &["eth0", "already", "stays as it is"]);
    let other = NetavarkContainer::new("web", &web, &network(host, "other").await)
        .option("interface_name", "eth1");
    let refused = engine(host).setup(&other).await;
    assert_says(refused, &["another name of the same mesh", "other"]);
    before.wait_again(host).await;
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    // Of what was refused nothing is there to be taken off, which is success.
    engine(host).teardown(&other).await.unwrap();
    before.wait_again(host).await;
    engine(host).teardown(&web_is).await.unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_given_to_one_whichever_engine_asks() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    let (web, db) = (namespace("web").await, namespace("db").await);
    let web_is = NetavarkContainer::new("web", &web, &made);
    let held = set_up(host, &web_is).await;
    let db_is = NetavarkContainer::new("db", &db, &made);
    // Docker's, or CNI's: all ask the same runtime.
    let other = AllocateAddressRequest {
        owner: Some(Owner {
            engine: "docker".into(),
            network: "bridge".into(),
            container: "shop".into(),
            interface: "eth0".into(),
        }),
        address: "10.42.1.40".into(),
        outlives_boot: true,
        ..Default::default()
    };
    let owner = other.owner.clone().unwrap();
    client(host).await.allocate(other).await.unwrap();
    for wished in [
        held.to_string(),
        "10.42.1.40".into(),
        "10.42.1.1".into(),
        "10.42.2.9".into(),
    ] {
        let wishing = db_is.clone().option("static_ips", json!([wished]));
        assert_says(engine(host).setup(&wishing).await, &[&wished]);
        assert_eq!(links(&db), ["lo"]);
    }
    assert_ne!(set_up(host, &db_is).await, held);
    for it in [web_is, db_is] {
        engine(host).teardown(&it).await.unwrap();
    }
    assert_eq!(only_lease(host).await.address, "10.42.1.40");
    client(host).await.release(owner).await.unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_runtime_nothing_is_set_up_and_with_the_next_one_it_is() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    let web = namespace("web").await;
    let web_is = NetavarkContainer::new("web", &web, &made);
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    let refused = engine(host).setup(&web_is).await;
    assert_says(refused, &["quilt-runtime"]);
    assert_eq!(links(&web), ["lo"]);
    needed(host.start_runtime(&DaemonOptions::new()).await);
    needed(host.wait_joined(SOON).await);
    set_up(host, &web_is).await;
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    engine(host).teardown(&web_is).await.unwrap();
    wait_leases(host, 0).await;
}

/// At moments from before the call to after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_setup_whose_runtime_is_killed_in_the_middle_succeeds_or_leaves_nothing() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let before = Remains::of(host).await;
    let made = network(host, "mesh").await;
    for delay in [1, 5, 10, 20, 40, 80] {
        let web = namespace("web").await;
        let web_is = NetavarkContainer::new("web", &web, &made);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            host.restart(Daemon::Runtime).unwrap();
        };
        let engine = engine(host);
        let (outcome, ()) = tokio::join!(engine.setup(&web_is), kill);
        needed(host.wait_joined(SOON).await);
        if outcome.is_err() {
            assert_says(outcome, &["runtime"]);
            assert_eq!(links(&web), ["lo"], "{delay} ms");
            // Podman does not try again; the operator does.
            set_up(host, &web_is).await;
        }
        assert_eq!(leases(host).await.len(), 1);
        five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
        engine.teardown(&web_is).await.unwrap();
        wait_leases(host, 0).await;
    }
    let _ = std::fs::remove_dir(host.runtime_socket().with_file_name("gone"));
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_containers_at_once_have_a_hundred_addresses_and_leave_nothing() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let before = Remains::of(host).await;
    let made = network(host, "mesh").await;
    let mut containers = Vec::new();
    for number in 0..100 {
        let name = format!("c{number}");
        let netns = namespace(&name).await;
        containers.push((NetavarkContainer::new(&name, &netns, &made), netns));
    }
    let setups = containers.iter().map(|(it, _)| set_up(host, it));
    let addresses = futures_util::future::join_all(setups).await;
    let different: BTreeSet<_> = addresses.iter().collect();
    assert_eq!(different.len(), 100, "{addresses:?}");
    assert_eq!(leases(host).await.len(), 100);
    let engine = engine(host);
    let teardowns = containers.iter().map(|(it, _)| engine.teardown(it));
    for done in futures_util::future::join_all(teardowns).await {
        done.unwrap();
    }
    before.wait_again(host).await;
}

/// As a container that Podman starts again when the name of its namespace was lost: the kernel takes a moment to end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_namespace_of_before_is_about_to_end_waits_for_its_end() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    let before = namespace("before").await;
    set_up(host, &NetavarkContainer::new("web", &before, &made)).await;
    let lives = File::open(before.path()).unwrap();
    let path = before.path();
    drop(before);
    assert!(!path.exists());
    let after = namespace("after").await;
    let web_is = NetavarkContainer::new("web", &after, &made);
    let end = async {
        // Until the first try was refused; one that comes later finds it gone.
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(lives);
    };
    let engine = engine(host);
    let (outcome, ()) = tokio::join!(engine.setup(&web_is), end);
    let held = address(&outcome.unwrap(), "eth0");
    assert_eq!(only_lease(host).await.address, held.to_string());
    five_of_five(&after, "10.42.1.1".parse().unwrap()).await;
    engine.teardown(&web_is).await.unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_drained_node_nothing_is_set_up_and_what_is_there_goes_on_and_is_torn_down() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    let (web, late) = (namespace("web").await, namespace("late").await);
    let web_is = NetavarkContainer::new("web", &web, &made);
    let late_is = NetavarkContainer::new("late", &late, &made);
    set_up(host, &web_is).await;
    let socket = host.runtime_socket();
    let mut maintenance = Maintenance::connect(&socket).await.unwrap();
    maintenance.drain(Some(true)).await.unwrap();
    let refused = engine(host).setup(&late_is).await;
    assert_says(refused, &["drained", "meshctl drain --undo"]);
    assert_eq!(links(&late), ["lo"]);
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    engine(host).teardown(&web_is).await.unwrap();
    wait_leases(host, 0).await;
    maintenance.drain(Some(false)).await.unwrap();
    set_up(host, &late_is).await;
    engine(host).teardown(&late_is).await.unwrap();
}
