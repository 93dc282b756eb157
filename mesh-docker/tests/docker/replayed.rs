//! What dockerd asks when it starts: the pools, gateways and addresses that it has, once more.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use mesh_testbed::{Daemon, DaemonOptions, Host, Signal};
use serde_json::json;

use crate::{
    container::{Container, Network, Step},
    docker::{Answer, Docker},
    driver::Driver,
    mesh::{
        SOON, client, five_of_five, leases, mesh_of, needed, only_lease, owner_of, wait_leases,
    },
    remains::Remains,
};

/// The longest dockerd may be held up at its start, by all that it has.
const START: Duration = Duration::from_secs(30);

/// What `reservePools` does for a network with these containers.
async fn replay(docker: &Docker, network: &Network, containers: &[&Container]) -> Answer<()> {
    let again = docker.network(&network.pool).await?;
    assert_eq!(
        (&again.pool_id, &again.pool, again.gateway),
        (&network.pool_id, &network.pool, network.gateway)
    );
    for container in containers {
        let address = confirm(docker, network, container.address()).await?;
        assert_eq!(address, container.address());
    }
    Ok(())
}

/// Of an endpoint Docker names the address alone.
async fn confirm(docker: &Docker, network: &Network, address: Ipv4Addr) -> Answer<Ipv4Addr> {
    let request = json!({ "PoolID": network.pool_id, "Address": address, "Options": {} });
    docker.address(&request).await.map(|it| it.addr())
}

async fn start_runtime(host: &Host) {
    needed(host.start_runtime(&DaemonOptions::new()).await);
    needed(host.wait_joined(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_has_is_confirmed_with_a_runtime_without_one_and_with_one_that_hangs() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let mut all = Vec::new();
    for number in 0..6 {
        let mut container = network.container(&format!("c{number}")).await;
        docker.run(host, &mut container).await.unwrap();
        all.push(container);
    }
    let some: Vec<&Container> = all.iter().collect();
    let held = leases(host).await;
    replay(&docker, &network, &some).await.unwrap();
    driver.restart().await;
    replay(&docker, &network, &some).await.unwrap();
    assert_eq!(leases(host).await, held);

    needed(host.kill(Daemon::Runtime, Signal::SIGSTOP));
    driver.restart().await;
    let begun = Instant::now();
    replay(&docker, &network, &some).await.unwrap();
    let taken = begun.elapsed();
    assert!(taken < START, "{taken:?}");
    needed(host.kill(Daemon::Runtime, Signal::SIGCONT));

    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    driver.restart().await;
    replay(&docker, &network, &some).await.unwrap();
    start_runtime(host).await;
    assert_eq!(leases(host).await.len(), all.len());
    for container in &mut all {
        docker.stop(host, container).await.unwrap();
    }
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_lives_on_and_ends_though_the_drivers_state_is_lost() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let empty = leases(host).await;
    assert!(empty.is_empty());
    for replayed in [false, true] {
        let mut web = network.container("web").await.publishing(8080, 80);
        docker.run(host, &mut web).await.unwrap();
        let lease = only_lease(host).await;
        driver.kill().await;
        fs::remove_dir_all(driver.state()).unwrap();
        driver.start().await;
        if replayed {
            replay(&docker, &network, &[&web]).await.unwrap();
            let after = only_lease(host).await;
            assert_eq!(owner_of(&after), owner_of(&lease));
        }
        five_of_five(&web.namespace, network.gateway).await;
        docker.stop(host, &mut web).await.unwrap();
        wait_leases(host, 0).await;
    }
    // An address without a container is leased anew.
    let mut web = network.container("web").await;
    docker.step(host, &mut web, Step::Address).await.unwrap();
    let lease = only_lease(host).await;
    let owner = lease.owner.clone().unwrap();
    client(host).await.release(owner).await.unwrap();
    replay(&docker, &network, &[&web]).await.unwrap();
    let anew = only_lease(host).await;
    assert_eq!(
        (owner_of(&anew), &anew.address),
        (owner_of(&lease), &lease.address)
    );
    docker.step(host, &mut web, Step::Release).await.unwrap();
    // Networks are known by their names alone: the next container is attached as any.
    let mut next = network.container("next").await;
    docker.run(host, &mut next).await.unwrap();
    five_of_five(&next.namespace, network.gateway).await;
    docker.stop(host, &mut next).await.unwrap();
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_without_state_or_runtime_goes_once_there_is_one() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let mut web = network.container("web").await;
    docker.run(host, &mut web).await.unwrap();
    driver.kill().await;
    fs::remove_dir_all(driver.state()).unwrap();
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    driver.start().await;
    for step in Step::DOWN {
        let done = docker.step(host, &mut web, step).await;
        if step != Step::Revoke {
            done.unwrap();
        }
    }
    driver.restart().await;
    start_runtime(host).await;
    wait_leases(host, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_lease_the_runtime_lost_ends_as_any_other() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let mut web = network.container("web").await;
    docker.run(host, &mut web).await.unwrap();
    let lease = only_lease(host).await;
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    for file in fs::read_dir(host.runtime_state_dir()).unwrap() {
        let path = file.unwrap().path();
        if path
            .file_name()
            .is_some_and(|it| it.to_string_lossy().starts_with("leases"))
        {
            fs::remove_file(path).unwrap();
        }
    }
    start_runtime(host).await;
    assert!(leases(host).await.is_empty());
    driver.restart().await;
    // Its interface is there, of which the runtime knows no more whose it is: dockerd writes that to its log, and goes on.
    let said = replay(&docker, &network, &[&web]).await.unwrap_err();
    assert!(said.0.contains(&lease.address), "{said}");
    for step in Step::DOWN {
        let done = docker.step(host, &mut web, step).await;
        if step != Step::Revoke {
            done.unwrap();
        }
    }
    before.wait_again(host).await;
    let mut next = network.container("next").await;
    docker.run(host, &mut next).await.unwrap();
    five_of_five(&next.namespace, network.gateway).await;
    docker.stop(host, &mut next).await.unwrap();
    before.wait_again(host).await;
}

/// `docker network create --aux-address`.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_set_aside_is_nobody_elses_until_it_is_given_back() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let aside = Ipv4Addr::new(10, 42, 1, 50);
    for _ in 0..2 {
        assert_eq!(confirm(&docker, &network, aside).await.unwrap(), aside);
    }
    let mut web = network.container("web").await;
    web.wished = Some(aside);
    let said = docker
        .step(host, &mut web, Step::Address)
        .await
        .unwrap_err();
    assert!(said.0.contains("10.42.1.50"), "{said}");
    let back = json!({ "PoolID": network.pool_id, "Address": aside });
    docker
        .call("IpamDriver.ReleaseAddress", &back)
        .await
        .unwrap();
    docker.run(host, &mut web).await.unwrap();
    assert_eq!(web.address(), aside);
    docker.stop(host, &mut web).await.unwrap();
    assert!(leases(host).await.is_empty());
}
