//! The ways out and in beside an engine's own rules: whose address is seen.

use mesh_testbed::{Engine, EngineContainerOptions, EngineNetwork, Host};

use crate::{
    attached::Attached,
    mesh::{mesh_of_two, needed, wait_endpoint},
    seen::{PORT, Server},
};

/// Where somebody outside the mesh serves.
const OUTSIDE: u16 = 8000;

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_podman_go_out_without_a_rule_of_the_operators_and_keep_their_address_inside()
{
    reach_the_outside(async |host: &Host, network| Engine::podman_with(host, network).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_docker_go_out_without_a_rule_of_the_operators_and_keep_their_address_inside()
{
    reach_the_outside(async |host: &Host, network| Engine::docker_with(host, network).await).await;
}

/// One host's engine masquerades, and the other's does not.
async fn reach_the_outside(
    engine: impl AsyncFn(&Host, EngineNetwork) -> mesh_testbed::Result<Engine>,
) {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let network = |masquerade| EngineNetwork {
        masquerade,
        ..EngineNetwork::default()
    };
    let options = EngineContainerOptions::default();
    let engines = [
        needed(engine(first, network(true)).await),
        needed(engine(second, network(false)).await),
    ];
    let [web, db] = engines
        .each_ref()
        .map(|engine| engine.start("web", &options).unwrap());
    wait_endpoint(first, web.address, Some(&web.mac)).await;
    wait_endpoint(second, db.address, Some(&db.mac)).await;
    let inside = [
        engines[0].entrance(&web).unwrap(),
        engines[1].entrance(&db).unwrap(),
    ];

    let outside = testbed.control();
    let server = Server::on(&outside.netns().entrance(), OUTSIDE);
    for (host, client) in [(first, &inside[0]), (second, &inside[1])] {
        let seen = server.sees(client, (outside.address(), OUTSIDE)).await;
        assert_eq!(seen, host.address(), "{}", host.name());
    }
    let server = Server::on(&inside[1], PORT);
    let seen = server.sees(&inside[0], (db.address, PORT)).await;
    assert_eq!(seen, web.address, "its engine masquerades");
    let server = Server::on(&inside[0], PORT);
    let seen = server.sees(&inside[1], (web.address, PORT)).await;
    assert_eq!(seen, db.address);
    for host in testbed.hosts() {
        assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_podman_publishes_are_reached_beside_ours() {
    ports_beside_ours(async |host: &Host| needed(Engine::podman(host).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_docker_publishes_are_reached_beside_ours() {
    ports_beside_ours(async |host: &Host| needed(Engine::docker(host).await)).await;
}

async fn ports_beside_ours(engine: impl AsyncFn(&Host) -> Engine) {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = engine(first).await;
    let options = EngineContainerOptions {
        publish: Some((8081, PORT)),
        ..EngineContainerOptions::default()
    };
    let web = engine.start("web", &options).unwrap();
    wait_endpoint(first, web.address, Some(&web.mac)).await;
    // One of the engine's without a network of its own, which is attached by a call.
    let namespace = engine.start_without_network("shop").unwrap();
    let shop = Attached::on(first, &namespace, Some((8080, PORT))).await;
    let db = second.add_container().await.unwrap();
    wait_endpoint(second, db.address(), None).await;

    let outside = testbed.control();
    let theirs = Server::on(&engine.entrance(&web).unwrap(), PORT);
    let ours = Server::on(shop.inside(), PORT);
    for (server, port) in [(&theirs, 8081), (&ours, 8080)] {
        for (client, whom) in [
            (outside.netns().entrance(), outside.address()),
            (db.netns().entrance(), second.address()),
            (first.netns().entrance(), first.address()),
        ] {
            let seen = server.sees(&client, (first.address(), port)).await;
            assert_eq!(seen, whom, "{} to port {port}", client.name());
        }
    }
    // Each other's, and ours by the gateway's address from another node: an engine's are not reached so.
    let gateway = first.bridge_address(mesh_testbed::BRIDGE).await.unwrap();
    let sibling = engine.entrance(&web).unwrap();
    let seen = ours.sees(&sibling, (first.address(), 8080)).await;
    assert_eq!(seen, gateway.addr());
    let seen = theirs.sees(shop.inside(), (first.address(), 8081)).await;
    assert_eq!(seen, gateway.addr());
    let far = db.netns().entrance();
    let seen = ours.sees(&far, (gateway.addr(), 8080)).await;
    assert_eq!(seen, gateway.addr());
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
}
