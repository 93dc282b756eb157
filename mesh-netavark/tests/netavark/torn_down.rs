//! `teardown`, which succeeds whatever is gone already.

use mesh_testbed::{Daemon, DaemonOptions, NetavarkContainer, Signal};
use serde_json::{Value, json};

use crate::{
    engine::{engine, network, set_up},
    mesh::{SOON, five_of_five, leases, links, mesh_of, namespace, needed, wait_leases},
    remains::Remains,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_was_or_is_gone_is_torn_down_and_nobody_else_is() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    let (web, shop) = (namespace("web").await, namespace("shop").await);
    let shop_is = NetavarkContainer::new("shop", &shop, &made);
    set_up(host, &shop_is).await;
    let before = Remains::of(host).await;
    let web_is = NetavarkContainer::new("web", &web, &made);
    engine(host).teardown(&web_is).await.unwrap();
    set_up(host, &web_is).await;
    for _ in 0..2 {
        engine(host).teardown(&web_is).await.unwrap();
        assert_eq!(links(&web), ["lo"]);
        before.wait_again(host).await;
    }
    // Another network or interface is somebody else, also with the namespace of this one.
    let other = network(host, "other").await;
    for stranger in [
        NetavarkContainer::new("shop", &shop, &other),
        NetavarkContainer::new("shop", &shop, &made).option("interface_name", "eth1"),
        NetavarkContainer::new("shop2", &shop, &made),
    ] {
        engine(host).teardown(&stranger).await.unwrap();
        before.wait_again(host).await;
    }
    five_of_five(&shop, "10.42.1.1".parse().unwrap()).await;
    engine(host).teardown(&shop_is).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_namespace_is_gone_or_whose_network_was_spoiled_is_torn_down() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let before = Remains::of(host).await;
    let made = network(host, "mesh").await;
    for gone in [true, false] {
        for path in [None, Some("/run/netns/there/is/none"), Some("/etc/passwd")] {
            let web = namespace("web").await;
            let web_is = NetavarkContainer::new("web", &web, &made);
            set_up(host, &web_is).await;
            if gone {
                drop(web);
            }
            let mut spoiled = made.clone();
            spoiled["subnets"] = json!("all");
            spoiled["options"]["later"] = json!(["than", "this"]);
            let path = path.map_or_else(|| web_is.netns().to_owned(), Into::into);
            let web_is = NetavarkContainer::by_path("web", path, &spoiled)
                .option("static_ips", Value::Bool(true));
            engine(host).teardown(&web_is).await.unwrap();
            before.wait_again(host).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_runtime_the_interface_goes_at_once_and_the_lease_when_the_runtime_is_back() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let made = network(host, "mesh").await;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (web, shop) = (namespace("web").await, namespace("shop").await);
        let web_is = NetavarkContainer::new("web", &web, &made);
        let shop_is = NetavarkContainer::new("shop", &shop, &made);
        set_up(host, &web_is).await;
        let stays = set_up(host, &shop_is).await;
        needed(host.stop(Daemon::Runtime, signal, SOON).await);
        for _ in 0..2 {
            engine(host).teardown(&web_is).await.unwrap();
            assert_eq!(links(&web), ["lo"]);
        }
        needed(host.start_runtime(&DaemonOptions::new()).await);
        let left = wait_leases(host, 1).await;
        assert_eq!(left[0].address, stays.to_string());
        needed(host.wait_joined(SOON).await);
        five_of_five(&shop, "10.42.1.1".parse().unwrap()).await;
        engine(host).teardown(&shop_is).await.unwrap();
        assert!(leases(host).await.is_empty());
    }
}
