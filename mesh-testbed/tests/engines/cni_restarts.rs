//! Containers on a network of `quilt-cni` that begin again: by a command, under an old name, with their host; and those that
//! come and go while the runtime does.

use mesh_testbed::{
    Daemon, DaemonOptions, Engine, EngineContainerOptions, Signal, wait_reachable, wait_until,
};

use crate::{
    containers::reach_each_other,
    leases::{container_links, leases, wait_nothing_left},
    mesh::{SOON, mesh_of_two, needed, wait_endpoint},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_podman_restarts_over_quilt_cni_is_reached_again_and_holds_one_lease() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let far = needed(Engine::podman_over_quilt_cni(second).await);
    let db = far.start("db", &EngineContainerOptions::default()).unwrap();
    let named = EngineContainerOptions {
        address: Some("10.42.1.77".parse().unwrap()),
        ..EngineContainerOptions::default()
    };
    for (name, options) in [("web", EngineContainerOptions::default()), ("api", named)] {
        let before = engine.start(name, &options).unwrap();
        engine.run(&["restart", "--time", "0", name]).unwrap();
        let after = engine.container(name).unwrap();
        assert_ne!(after, before, "it has another namespace");
        if options.address.is_some() {
            assert_eq!(after.address, before.address);
        }
        // In its namespace, as a reload of Podman's rules does it, with the address of before.
        engine.run(&["network", "reload", name]).unwrap();
        let reloaded = engine.container(name).unwrap();
        assert_eq!(
            (reloaded.address, &reloaded.mac),
            (after.address, &after.mac)
        );
        wait_endpoint(first, reloaded.address, Some(&reloaded.mac)).await;
        reach_each_other((first, &engine, &reloaded), (second, &far, &db)).await;
    }
    assert_eq!(leases(first).await.len(), 2);
    assert_eq!(container_links(first).await.len(), 2);
}

/// `ctr` tells plugins neither of the end of a container nor of its removal.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_containerds_that_begins_anew_under_its_name_is_attached_at_once() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::containerd(first).await);
    let far = second.add_container().await.unwrap();
    let options = EngineContainerOptions::default();
    for _ in 0..3 {
        let web = engine.start("web", &options).unwrap();
        wait_reachable(far.netns(), web.address, SOON)
            .await
            .unwrap();
        assert_eq!(leases(first).await.len(), 1);
        assert_eq!(container_links(first).await.len(), 1);
        engine.remove(web).unwrap();
    }
}

/// Podman does not tell plugins that a container is gone whose namespace is.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_podmans_whose_namespace_was_lost_is_attached_at_once_when_it_starts() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let far = second.add_container().await.unwrap();
    let options = EngineContainerOptions::default();
    let before = engine.start("web", &options).unwrap();
    engine.lose_namespace(&before).unwrap();
    engine.run(&["restart", "--time", "0", "web"]).unwrap();
    let after = engine.container("web").unwrap();
    wait_reachable(far.netns(), after.address, SOON)
        .await
        .unwrap();
    assert_eq!(leases(first).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_podmans_over_quilt_cni_come_back_with_their_host() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let mut engine = needed(Engine::podman_over_quilt_cni(first).await);
    let far = needed(Engine::podman_over_quilt_cni(second).await);
    let db = far.start("db", &EngineContainerOptions::default()).unwrap();
    let options = EngineContainerOptions::default();
    engine.start("web", &options).unwrap();
    let named = EngineContainerOptions {
        address: Some("10.42.1.2".parse().unwrap()),
        ..EngineContainerOptions::default()
    };
    engine.restart_host(first).await.unwrap();
    assert_eq!(leases(first).await, [], "of the boot before");
    // One that takes the address of before, and one that had it.
    engine.start("api", &named).unwrap();
    engine.run(&["start", "web"]).unwrap();
    for name in ["api", "web"] {
        let container = engine.container(name).unwrap();
        wait_endpoint(first, container.address, Some(&container.mac)).await;
        reach_each_other((first, &engine, &container), (second, &far, &db)).await;
    }
    assert_eq!(leases(first).await.len(), 2);
    assert_eq!(container_links(first).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_podman_removes_while_no_runtime_runs_is_gone_when_it_is_back() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let far = second.add_container().await.unwrap();
    let options = EngineContainerOptions::default();
    let [stays, goes] = ["stays", "goes"].map(|name| engine.start(name, &options).unwrap());
    let stopped = first.stop(Daemon::Runtime, Signal::SIGKILL, SOON).await;
    stopped.unwrap();
    engine.remove(goes).unwrap();
    assert_eq!(container_links(first).await.len(), 1);
    first.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_until("the end of the lease", SOON, async || {
        let leases = leases(first).await;
        (leases.len() == 1)
            .then_some(())
            .ok_or(format!("{leases:?}"))
    })
    .await
    .unwrap();
    wait_reachable(far.netns(), stays.address, SOON)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_starts_a_container_while_the_runtime_restarts() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::podman_over_quilt_cni(first).await);
    let far = second.add_container().await.unwrap();
    first.restart(Daemon::Runtime).unwrap();
    let web = engine.start("web", &EngineContainerOptions::default());
    wait_reachable(far.netns(), web.unwrap().address, SOON)
        .await
        .unwrap();
}

/// `ctr` calls no DEL for what failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_containerd_starts_while_no_runtime_runs_fails_and_leaves_nothing() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = needed(Engine::containerd(first).await);
    let far = second.add_container().await.unwrap();
    let stopped = first.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await;
    stopped.unwrap();
    let options = EngineContainerOptions::default();
    let refusal = engine.start("web", &options).unwrap_err().to_string();
    assert!(refusal.contains("is quilt-runtime running"), "{refusal}");
    assert_eq!(container_links(first).await, [""; 0]);
    first.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_nothing_left(first).await;
    // What `ctr` made of it so far is still there.
    engine.run(&["tasks", "delete", "--force", "web"]).unwrap();
    engine.run(&["containers", "delete", "web"]).unwrap();
    first.wait_ready(SOON).await.unwrap();
    let web = engine.start("web", &options).unwrap();
    wait_reachable(far.netns(), web.address, SOON)
        .await
        .unwrap();
}
