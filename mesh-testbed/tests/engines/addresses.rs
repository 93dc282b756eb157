//! Addresses that an engine gives, beside those that are leased: never one to two.

use std::collections::BTreeSet;

use mesh_testbed::{
    Engine, EngineContainerOptions, EngineNetwork, Host, NetNs, ping, wait_reachable, wait_until,
};

use crate::{
    attached::Attached,
    mesh::{SOON, mesh_of_two, needed, wait_endpoint},
};

#[tokio::test(flavor = "multi_thread")]
async fn podman_in_its_part_of_the_subnet_and_calls_give_no_address_to_two() {
    no_address_to_two(async |host: &Host, network| Engine::podman_with(host, network).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_in_its_part_of_the_subnet_and_calls_give_no_address_to_two() {
    no_address_to_two(async |host: &Host, network| Engine::docker_with(host, network).await).await;
}

async fn no_address_to_two(
    engine: impl AsyncFn(&Host, EngineNetwork) -> mesh_testbed::Result<Engine>,
) {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let part = "10.42.1.128/25".parse().unwrap();
    let network = EngineNetwork {
        part: Some(part),
        ..EngineNetwork::default()
    };
    let engine = needed(engine(first, network).await);
    let far = second.add_container().await.unwrap();
    let options = EngineContainerOptions::default();
    let mut given = BTreeSet::new();
    let mut containers = Vec::new();
    for name in ["one", "two", "three"] {
        let theirs = engine.start(name, &options).unwrap();
        assert!(part.contains(&theirs.address), "{theirs:?}");
        wait_endpoint(first, theirs.address, Some(&theirs.mac)).await;
        let ours = NetNs::new(name).await.unwrap();
        let attached = Attached::on(first, &ours.path(), None).await;
        assert!(!part.contains(&attached.address()), "{name}");
        for address in [theirs.address, attached.address()] {
            assert!(given.insert(address), "{address} was given to two");
            wait_reachable(far.netns(), address, SOON).await.unwrap();
        }
        containers.push((theirs, ours));
    }
    // Also whoever asks for an engine's address by name does not get it.
    let (theirs, _) = &containers[0];
    let beggar = NetNs::new("beggar").await.unwrap();
    let refusal = Attached::refusal(first, &beggar.path(), theirs.address).await;
    assert!(refusal.to_string().contains("in use"), "{refusal}");
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
}

/// An engine that has the whole subnet knows no leases.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_podman_gives_although_it_is_leased_stays_with_its_owner() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman(first).await);
    let far = second.add_container().await.unwrap();
    let ours = NetNs::new("ours").await.unwrap();
    let attached = Attached::on(first, &ours.path(), None).await;
    let address = attached.address();
    wait_reachable(far.netns(), address, SOON).await.unwrap();
    let options = EngineContainerOptions {
        address: Some(address),
        ..EngineContainerOptions::default()
    };
    let theirs = engine.start("theirs", &options).unwrap();
    let problem = format!("address {address} is held by several containers");
    wait_problem(first, &problem).await;
    let endpoints = first.status().await.unwrap().endpoints;
    let mut of_address = endpoints
        .iter()
        .filter(|it| it.address == address.to_string());
    assert!(of_address.all(|it| it.mac != theirs.mac), "{endpoints:?}");
    let report = ping(far.netns(), address, mesh_testbed::PingOptions::default());
    assert!(report.await.unwrap().is_complete());
    engine.remove(theirs).unwrap();
    wait_until("no problem", SOON, async || {
        let problems = first.status().await.unwrap().problems();
        problems.is_empty().then_some(()).ok_or(problems.join("; "))
    })
    .await
    .unwrap();
    attached.detach(first).await;
}

async fn wait_problem(host: &Host, words: &str) {
    wait_until(words, SOON, async || {
        let problems = host.status().await.unwrap().problems();
        let named = problems.iter().any(|problem| problem.contains(words));
        named.then_some(()).ok_or(problems.join("; "))
    })
    .await
    .unwrap();
}
