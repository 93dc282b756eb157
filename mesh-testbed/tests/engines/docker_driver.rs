//! Containers of Docker on a network of `quilt-docker`.

use std::net::Ipv4Addr;

use mesh_testbed::{Engine, EngineContainerOptions};

use crate::{
    containers::reach_each_other,
    leases::{container_links, leases},
    mesh::{bridge, mesh_of_two, needed, wait_endpoint, wait_no_endpoint},
};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_docker_over_quilt_docker_reach_each_other_by_the_fast_path_and_leave_nothing()
 {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [bridge(first).await, bridge(second).await];
    let engines = [
        needed(Engine::docker_over_quilt_docker(first).await),
        needed(Engine::docker_over_quilt_docker(second).await),
    ];
    let web = engines[0].start("web", &EngineContainerOptions::default());
    let web = web.unwrap_or_else(|error| panic!("{error}\n{}", engines[0].driver_log(first)));
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
        wait_endpoint(host, container.address, Some(&container.mac)).await;
    }
    reach_each_other((first, &engines[0], &web), (second, &engines[1], &db)).await;

    for (host, engine, container) in [(first, &engines[0], web), (second, &engines[1], db)] {
        let address = container.address;
        engine.remove(container).unwrap();
        assert_eq!(leases(host).await, []);
        assert_eq!(container_links(host).await, [""; 0]);
        wait_no_endpoint(host, address).await;
        assert_eq!(host.status().await.unwrap().problems, [""; 0]);
    }
    assert_eq!([bridge(first).await, bridge(second).await], before);
}
