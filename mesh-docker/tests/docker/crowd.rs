//! Many at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    container::Step,
    driver::Driver,
    mesh::{five_of_five, leases, mesh_of},
    remains::Remains,
};

const CONTAINERS: usize = 100;
const CALLERS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_containers_at_once_have_an_address_each_and_leave_nothing() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let next = Arc::new(AtomicUsize::new(0));
    let started = Arc::new(Mutex::new(Vec::new()));
    let caller = async || {
        while next.fetch_add(1, Ordering::Relaxed) < CONTAINERS {
            let mut container = network.container("c").await;
            docker.run(host, &mut container).await.unwrap();
            started.lock().unwrap().push(container);
        }
    };
    futures_util::future::join_all((0..CALLERS).map(|_| caller())).await;
    let all: Vec<_> = started.lock().unwrap().drain(..).collect();
    let addresses: BTreeSet<_> = all.iter().map(|it| it.address()).collect();
    assert_eq!(addresses.len(), CONTAINERS);
    let leased: BTreeSet<_> = leases(host)
        .await
        .into_iter()
        .map(|it| it.address)
        .collect();
    let given: BTreeSet<_> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(leased, given);
    let of_some = &all[..3];
    for container in of_some {
        five_of_five(&container.namespace, network.gateway).await;
    }
    let all = Mutex::new(all);
    let caller = async || {
        loop {
            let one = all.lock().unwrap().pop();
            let Some(mut one) = one else { return };
            docker.stop(host, &mut one).await.unwrap();
        }
    };
    futures_util::future::join_all((0..CALLERS).map(|_| caller())).await;
    assert!(leases(host).await.is_empty());
    before.wait_again(host).await;
}

/// Addresses go from one to the next at once, and each is the one's who has it.
#[tokio::test(flavor = "multi_thread")]
async fn containers_that_come_and_go_have_an_address_each_and_lose_it_to_nobody() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let held = Mutex::new(BTreeSet::new());
    let caller = async || {
        for _ in 0..25 {
            let mut container = network.container("c").await;
            docker
                .step(host, &mut container, Step::Address)
                .await
                .unwrap();
            assert!(held.lock().unwrap().insert(container.address()));
            for step in [Step::Endpoint, Step::Join, Step::Leave, Step::Delete] {
                docker.step(host, &mut container, step).await.unwrap();
            }
            assert!(held.lock().unwrap().remove(&container.address()));
            docker
                .step(host, &mut container, Step::Release)
                .await
                .unwrap();
        }
    };
    futures_util::future::join_all((0..CALLERS).map(|_| caller())).await;
    assert!(leases(host).await.is_empty());
    before.wait_again(host).await;
}
