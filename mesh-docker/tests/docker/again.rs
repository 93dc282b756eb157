//! Calls that come again: Docker repeats each whose connection broke, and dockerd each after it was killed.

use std::collections::BTreeSet;

use mesh_testbed::{Gate, Host};

use crate::{
    container::{Container, Network, Step},
    docker::Docker,
    driver::Driver,
    mesh::{five_of_five, leases, mesh_of, needed, wait_leases},
    remains::Remains,
};

/// When the driver is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The runtime has not heard of the call yet.
    BeforeRuntime,
    /// The runtime has done what it asks, and the driver does not know it.
    BeforeRuntimesAnswer,
    /// Docker has the answer, or not: nobody can tell.
    AfterAnswer,
}

/// Sees a container live on from a step to its end, and that nothing is left.
async fn live_on(host: &Host, docker: &Docker, container: &mut Container, after: Step) {
    let rest = Step::all().skip_while(|it| *it != after).skip(1);
    for step in rest {
        docker.step(host, container, step).await.unwrap();
        if step == Step::In {
            five_of_five(&container.namespace, container.network.gateway).await;
            assert_eq!(leases(host).await.len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_may_come_twice_in_a_row() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let driver = Driver::on(host).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let again = docker.network("").await.unwrap();
    assert_eq!(
        (again.pool_id, again.gateway),
        (network.pool_id.clone(), network.gateway)
    );
    let before = Remains::of(host).await;
    let creation = network.creation(&serde_json::json!({}));
    docker
        .call("NetworkDriver.CreateNetwork", &creation)
        .await
        .unwrap();
    let mut web = network.container("web").await.publishing(8080, 80);
    for step in Step::all() {
        docker.step(host, &mut web, step).await.unwrap();
        if !matches!(step, Step::In | Step::Back) {
            docker.step(host, &mut web, step).await.unwrap();
        }
        if step == Step::In {
            five_of_five(&web.namespace, network.gateway).await;
        }
    }
    before.wait_again(host).await;
    for _ in 0..2 {
        docker.delete_network(&network).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_during_which_the_driver_is_killed_comes_again_and_nothing_is_given_twice_or_left() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let mut driver = Driver::before(host, gate.socket()).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    // Somebody whose address must not be given to anybody else.
    let mut other = network.container("other").await;
    gate.passing(docker.run(host, &mut other)).await.unwrap();
    let with_other = Remains::of(host).await;
    for step in Step::all() {
        for moment in [
            Moment::BeforeRuntime,
            Moment::BeforeRuntimesAnswer,
            Moment::AfterAnswer,
        ] {
            if matches!(step, Step::In | Step::Back) {
                continue;
            }
            let Some(at) = At::of(step, moment) else {
                continue;
            };
            eprintln!("{step:?} {moment:?}");
            let mut web = network.container("web").await.publishing(8080, 80);
            die(host, &mut gate, &mut driver, &docker, &mut web, at).await;
            let of_others: BTreeSet<_> = [network.gateway, other.address()].into();
            assert!(!of_others.contains(&web.address()));
            if step != Step::Release {
                let count = leases(host).await.len();
                assert_eq!(count, 2, "{step:?} {moment:?}");
            }
            let rest = async {
                let rest = Step::all().skip_while(|it| *it != step).skip(1);
                for step in rest {
                    docker.step(host, &mut web, step).await.unwrap();
                    if step == Step::In {
                        five_of_five(&web.namespace, network.gateway).await;
                    }
                }
            };
            gate.passing(rest).await;
            gate.passing(with_other.wait_again(host)).await;
        }
    }
    gate.passing(docker.stop(host, &mut other)).await.unwrap();
    before.wait_again(host).await;
}

/// At which call the driver dies, and when.
struct At {
    step: Step,
    moment: Moment,
}

impl At {
    /// Of calls that the runtime hears nothing of one moment is left.
    fn of(step: Step, moment: Moment) -> Option<Self> {
        let there = step.behind().is_some() || matches!(moment, Moment::AfterAnswer);
        there.then_some(Self { step, moment })
    }
}

/// Lives a container up to a step in which the driver is killed, and started again.
async fn die(
    host: &Host,
    gate: &mut Gate,
    driver: &mut Driver,
    docker: &Docker,
    container: &mut Container,
    At { step, moment }: At,
) {
    let until = async {
        for it in Step::all().take_while(|it| *it != step) {
            docker.step(host, container, it).await.unwrap();
        }
    };
    gate.passing(until).await;
    let what = step.behind().unwrap_or_default();
    if matches!(moment, Moment::AfterAnswer) {
        gate.passing(docker.step(host, container, step))
            .await
            .unwrap();
        driver.restart().await;
        gate.passing(docker.step(host, container, step))
            .await
            .unwrap();
        return;
    }
    let dies = async {
        let call = gate.next_of(what).await;
        match moment {
            Moment::BeforeRuntime => {
                driver.kill().await;
                drop(call);
            }
            _ => {
                let answered = call.hold().await;
                driver.kill().await;
                drop(answered);
            }
        }
        driver.start().await;
        gate.passing(std::future::pending::<()>()).await;
    };
    tokio::select! {
        done = docker.step(host, container, step) => done.unwrap(),
        () = dies => {}
    }
}

/// Docker gives up after half a minute, or is killed as well.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_which_docker_never_heard_is_given_back_by_the_next_driver() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let mut driver = Driver::before(host, gate.socket()).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let mut web = network.container("web").await;
    let asks = docker.step(host, &mut web, Step::Address);
    let dies = async {
        let answered = gate.next_of("allocate").await.hold().await;
        driver.kill().await;
        drop(answered);
    };
    tokio::select! {
        done = asks => panic!("{done:?}"),
        () = dies => {}
    }
    assert_eq!(leases(host).await.len(), 1);
    driver.start().await;
    gate.passing(wait_leases(host, 0)).await;
    gate.passing(before.wait_again(host)).await;
    gate.passing(docker.run(host, &mut web)).await.unwrap();
    // Whatever of it the next driver finds, it has been given by now.
    driver.restart().await;
    gate.passing(async {
        five_of_five(&web.namespace, network.gateway).await;
        docker.stop(host, &mut web).await.unwrap();
    })
    .await;
    before.wait_again(host).await;
}

/// A container that starts has the address that one has just given back, whose end the driver is still at.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_by_one_and_leased_to_another_at_that_moment_is_the_others() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let driver = Driver::before(host, gate.socket()).await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    for is_told in [true, false] {
        let mut web = network.container("web").await;
        gate.passing(docker.run(host, &mut web)).await.unwrap();
        let address = web.address();
        let ends = end_of(&docker, host, &mut gate, &mut web).await;
        // The runtime has taken it back, and the driver does not know it yet.
        let answered = gate.next_of("release").await.hold().await;
        let mut db = network.container("db").await;
        db.wished = Some(address);
        let starts = async {
            docker.step(host, &mut db, Step::Address).await.unwrap();
            docker.step(host, &mut db, Step::Endpoint).await.unwrap();
        };
        gate.passing(starts).await;
        // Or it hears that nobody knows what became of it.
        match is_told {
            true => answered.tell(),
            false => drop(answered),
        }
        gate.passing(ends).await.unwrap().unwrap();
        gate.passing(async {
            for step in [Step::Join, Step::Publish, Step::In] {
                docker.step(host, &mut db, step).await.unwrap();
            }
            five_of_five(&db.namespace, network.gateway).await;
            docker.stop(host, &mut db).await.unwrap();
        })
        .await;
        gate.passing(before.wait_again(host)).await;
    }
}

/// Takes a container down to the release of its address, which goes on by itself.
async fn end_of(
    docker: &Docker,
    host: &Host,
    gate: &mut Gate,
    container: &mut Container,
) -> tokio::task::JoinHandle<Result<serde_json::Value, crate::docker::Refused>> {
    gate.passing(async {
        for step in Step::DOWN {
            if step != Step::Release {
                docker.step(host, container, step).await.unwrap();
            }
        }
    })
    .await;
    let request = container.request(Step::Release);
    let docker = docker.clone();
    tokio::spawn(async move { docker.call(Step::Release.call(), &request).await })
}

/// The repeated call is there before the first has ended: the driver finishes what it has begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_again_while_the_first_is_under_way_does_the_same_once() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut gate = needed(Gate::before(host));
    let driver = Driver::before(host, gate.socket()).await;
    let docker = driver.docker();
    let network: Network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let mut web = network.container("web").await.publishing(8080, 80);
    for step in Step::all() {
        let Some(what) = step.behind() else {
            gate.passing(docker.step(host, &mut web, step))
                .await
                .unwrap();
            continue;
        };
        let (first, request) = (docker.clone(), web.request(step));
        let first = tokio::spawn(async move { first.call(step.call(), &request).await });
        let answered = gate.next_of(what).await.hold().await;
        // Docker has hung up.
        first.abort();
        let again = docker.step(host, &mut web, step);
        let goes_on = async {
            answered.tell();
            gate.passing(std::future::pending::<()>()).await;
        };
        tokio::select! {
            done = again => done.unwrap(),
            () = goes_on => {}
        }
    }
    gate.passing(before.wait_again(host)).await;
    live_on_after(host, &mut gate, &docker, &network).await;
}

/// Sees that the next container is not disturbed by what came before.
async fn live_on_after(host: &Host, gate: &mut Gate, docker: &Docker, network: &Network) {
    let mut next = network.container("next").await;
    gate.passing(async {
        docker.step(host, &mut next, Step::Address).await.unwrap();
        live_on(host, docker, &mut next, Step::Address).await;
    })
    .await;
}
