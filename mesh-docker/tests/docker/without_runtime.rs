//! No runtime, or one that hangs: who starts a container is told, and whoever stops one is not held up.

use std::time::{Duration, Instant};

use mesh_testbed::{Daemon, DaemonOptions, Host, Signal};

use crate::{
    container::{Container, Network, Step},
    docker::Docker,
    driver::Driver,
    mesh::{SOON, five_of_five, ip, leases, mesh_of, needed, wait_leases},
    remains::Remains,
};

/// The longest a call of a container's start takes: a runtime that comes is waited for, and then for its answer. Docker itself
/// waits for longer.
const START: Duration = Duration::from_secs(25);

/// The longest the calls of a container's end take together.
const END: Duration = Duration::from_secs(15);

async fn stop_runtime(host: &Host) {
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
}

async fn start_runtime(host: &Host) {
    needed(host.start_runtime(&DaemonOptions::new()).await);
    needed(host.wait_joined(SOON).await);
}

/// Docker ends a container: a call of its end may fail only where Docker goes on nevertheless.
async fn end(docker: &Docker, host: &Host, container: &mut Container) {
    let begun = Instant::now();
    for step in Step::DOWN {
        let done = docker.step(host, container, step).await;
        if step != Step::Revoke {
            done.unwrap();
        }
    }
    let taken = begun.elapsed();
    assert!(taken < END, "{taken:?}");
}

/// Sees a step refused in time, with a sentence of the runtime.
async fn refused(docker: &Docker, host: &Host, container: &mut Container, step: Step) -> String {
    let begun = Instant::now();
    let said = docker.step(host, container, step).await.unwrap_err();
    let taken = begun.elapsed();
    assert!(taken < START, "{step:?} takes {taken:?}: {said}");
    assert!(said.0.contains("runtime"), "{said}");
    assert!(
        said.0.contains("start it")
            || said.0.contains("see whether it runs")
            || said.0.contains("is quilt-runtime running"),
        "{said}"
    );
    said.0
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_runtime_nothing_starts_everything_ends_and_what_is_left_goes_once_there_is_one()
{
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    for restarted in [false, true] {
        let mut web = network.container("web").await.publishing(8080, 80);
        docker.run(host, &mut web).await.unwrap();
        stop_runtime(host).await;
        let mut other = network.container("other").await;
        refused(&docker, host, &mut other, Step::Address).await;
        end(&docker, host, &mut web).await;
        if restarted {
            driver.restart().await;
        }
        start_runtime(host).await;
        wait_leases(host, 0).await;
        before.wait_again(host).await;
        // The same container, with the same MAC address.
        let mut again = network.container("web").await.publishing(8080, 80);
        again.mac.clone_from(&web.mac);
        docker.run(host, &mut again).await.unwrap();
        five_of_five(&again.namespace, network.gateway).await;
        docker.stop(host, &mut again).await.unwrap();
        before.wait_again(host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_goes_in_the_middle_of_a_start_leaves_nothing() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    for failing in [Step::Join, Step::Publish] {
        let mut web = network.container("web").await.publishing(8080, 80);
        for step in Step::UP.into_iter().take_while(|it| *it != failing) {
            docker.step(host, &mut web, step).await.unwrap();
        }
        stop_runtime(host).await;
        refused(&docker, host, &mut web, failing).await;
        // As libnetwork takes back what failed.
        for step in [Step::Leave, Step::Delete, Step::Release] {
            docker.step(host, &mut web, step).await.unwrap();
        }
        start_runtime(host).await;
        before.wait_again(host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_a_container_waits_for_a_runtime_that_is_just_being_started() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let mut gone = network.container("gone").await;
    docker.run(host, &mut gone).await.unwrap();
    stop_runtime(host).await;
    // Of this one something is to be undone first.
    end(&docker, host, &mut gone).await;
    let mut web = network.container("web").await;
    let (started, ()) = tokio::join!(docker.run(host, &mut web), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        start_runtime(host).await;
    });
    started.unwrap();
    five_of_five(&web.namespace, network.gateway).await;
    docker.stop(host, &mut web).await.unwrap();
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_hangs_holds_nobody_up_beyond_the_deadlines_and_what_is_left_goes_once_it_goes_on()
 {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    for restarted in [false, true] {
        let mut web = network.container("web").await.publishing(8080, 80);
        let mut db = network.container("db").await;
        let mut joins = network.container("joins").await;
        for it in [&mut web, &mut db] {
            docker.run(host, it).await.unwrap();
        }
        for step in [Step::Address, Step::Endpoint] {
            docker.step(host, &mut joins, step).await.unwrap();
        }
        needed(host.kill(Daemon::Runtime, Signal::SIGSTOP));
        let mut other = network.container("other").await;
        // Side by side: nobody waits for another one.
        let (address, join, (), ()) = tokio::join!(
            refused(&docker, host, &mut other, Step::Address),
            refused(&docker, host, &mut joins, Step::Join),
            end(&docker, host, &mut web),
            async {
                let begun = Instant::now();
                docker.step(host, &mut db, Step::Endpoint).await.unwrap();
                let gateway = docker.gateway(&network).await.unwrap();
                assert_eq!(gateway.addr(), network.gateway);
                assert!(begun.elapsed() < END);
            }
        );
        // As long as it was waited for.
        for said in [address, join] {
            assert!(said.contains("within 15 s"), "{said}");
        }
        for step in [Step::Delete, Step::Release] {
            docker.step(host, &mut joins, step).await.unwrap();
        }
        if restarted {
            driver.restart().await;
        }
        needed(host.kill(Daemon::Runtime, Signal::SIGCONT));
        let left = wait_leases(host, 1).await;
        assert_eq!(left[0].address, db.address().to_string());
        five_of_five(&db.namespace, network.gateway).await;
        docker.stop(host, &mut db).await.unwrap();
        before.wait_again(host).await;
    }
}

/// As many as a host has that is shut down while its runtime hangs.
#[tokio::test(flavor = "multi_thread")]
async fn many_containers_end_in_the_time_of_one_while_the_runtime_hangs() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network: Network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let mut all = Vec::new();
    for number in 0..8 {
        let mut container = network.container(&format!("c{number}")).await;
        docker.run(host, &mut container).await.unwrap();
        all.push(container);
    }
    needed(host.kill(Daemon::Runtime, Signal::SIGSTOP));
    let begun = Instant::now();
    // One after the other, as dockerd does at its start.
    for container in &mut all {
        end(&docker, host, container).await;
    }
    let taken = begun.elapsed();
    assert!(taken < 2 * END, "{taken:?}");
    needed(host.kill(Daemon::Runtime, Signal::SIGCONT));
    before.wait_again(host).await;
    for container in &all {
        assert!(!ip(&container.namespace, "link show").contains("eth0"));
    }
    assert!(leases(host).await.is_empty());
}
