//! Containers' lives, from the first call to the last.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::{
    container::Step,
    driver::Driver,
    mesh::{
        SOON, counters, endpoint, fast, five_of_five, ip, leases, links, mesh_of, needed,
        only_lease, owner_of,
    },
    remains::Remains,
};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_two_hosts_reach_each_other_by_the_fast_path_and_leave_nothing() {
    let testbed = mesh_of(2).await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let drivers = [Driver::on(first).await, Driver::on(second).await];
    let (here, there) = (drivers[0].docker(), drivers[1].docker());
    for docker in [&here, &there] {
        // Now it is written down what the runtime says of its node.
        docker.network("").await.unwrap();
    }
    let empty = [Remains::of(first).await, Remains::of(second).await];
    let networks = [
        here.create_network().await.unwrap(),
        there
            .create_network_with("10.42.0.0/16", &json!({}))
            .await
            .unwrap(),
    ];
    assert_eq!(networks[0].pool, "0.0.0.0/0");
    assert_eq!(networks[1].pool, "10.42.0.0/16");
    let before = [Remains::of(first).await, Remains::of(second).await];
    let mut web = networks[0].container("web").await.publishing(8080, 80);
    let mut db = networks[1].container("db").await;
    let wished = Ipv4Addr::new(10, 42, 2, 40);
    db.wished = Some(wished);
    here.run(first, &mut web).await.unwrap();
    there.run(second, &mut db).await.unwrap();
    assert_eq!(db.address(), wished);
    let lease = only_lease(first).await;
    assert_eq!(
        owner_of(&lease),
        format!("docker/quilt/{}/eth", web.holder())
    );
    assert_eq!(lease.address, web.address().to_string());
    let ports: Vec<_> = lease.ports.iter().map(|it| it.host_port).collect();
    assert_eq!(ports, [8080]);
    let shown = endpoint(first, web.address()).await.unwrap();
    assert_eq!(shown.mac, web.mac);

    needed(mesh_testbed::wait_reachable(&web.namespace, wished, SOON).await);
    let counted = counters(first).await;
    five_of_five(&web.namespace, wished).await;
    let (sent, received) = fast(&counted, &counters(first).await);
    assert!(sent >= 5 && received >= 5, "{sent} and {received}");
    five_of_five(&db.namespace, web.address()).await;
    five_of_five(&web.namespace, networks[0].gateway).await;

    here.stop(first, &mut web).await.unwrap();
    there.stop(second, &mut db).await.unwrap();
    assert_eq!(links(&web.namespace), ["lo"]);
    before[0].wait_again(first).await;
    before[1].wait_again(second).await;
    here.delete_network(&networks[0]).await.unwrap();
    there.delete_network(&networks[1]).await.unwrap();
    empty[0].wait_again(first).await;
    empty[1].wait_again(second).await;
}

/// As a container does that runs until it is killed: its interface goes with its namespace.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_namespace_went_first_leaves_nothing_and_starts_again() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    for _ in 0..2 {
        let mut web = network.container("web").await;
        web.mac = "02:42:0a:2a:01:07".to_owned();
        docker.run(host, &mut web).await.unwrap();
        five_of_five(&web.namespace, network.gateway).await;
        ip(&web.namespace, "link del eth0");
        for step in Step::DOWN {
            if step != Step::Back {
                docker.step(host, &mut web, step).await.unwrap();
            }
        }
        before.wait_again(host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_networks_options_are_those_of_its_containers_whichever_driver_made_it() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let docker = driver.docker();
    docker.network("").await.unwrap();
    let empty = Remains::of(host).await;
    let options = json!({ "com.docker.network.driver.mtu": "1400" });
    let network = docker.create_network_with("", &options).await.unwrap();
    driver.restart().await;
    let mut web = network.container("web").await;
    docker.run(host, &mut web).await.unwrap();
    assert!(ip(&web.namespace, "link show eth0").contains("mtu 1400"));
    let routes = ip(&web.namespace, "route show");
    assert!(routes.contains("default via 10.42.1.1"), "{routes}");
    docker.stop(host, &mut web).await.unwrap();
    assert!(leases(host).await.is_empty());
    for _ in 0..2 {
        docker.delete_network(&network).await.unwrap();
        driver.restart().await;
    }
    empty.wait_again(host).await;
}
