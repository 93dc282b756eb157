//! The runtime goes in the middle.

use std::time::Duration;

use mesh_testbed::{CniAttachment, Daemon, DaemonOptions, Links, Signal};

use crate::{
    engine::{address, alone, assert_says, engine, failure},
    mesh::{SOON, five_of_five, links, mesh_of, namespace, only_lease, wait_leases},
    remains::Remains,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_add_to_a_runtime_that_is_frozen_is_to_be_tried_again_and_nothing_of_it_is_left() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    host.kill(Daemon::Runtime, Signal::SIGSTOP).unwrap();
    let added = engine.add(&alone(host), &attachment).await;
    host.kill(Daemon::Runtime, Signal::SIGCONT).unwrap();
    assert_says(&failure(added), 11, &["runtime"]);
    assert_eq!(links(&web), ["lo"]);
    wait_leases(host, 0).await;
    let result = engine.add(&alone(host), &attachment).await.unwrap();
    assert_eq!(
        only_lease(host).await.address,
        address(&result, 0).to_string()
    );
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    engine.del(&alone(host), &attachment).await.unwrap();
    before.wait_again(host).await;
}

/// What the runtime of the next moment would undo is in nobody's way until then.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_whose_runtime_is_killed_when_the_interface_is_there_takes_it_back() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let mut failures = 0;
    for _ in 0..6 {
        let web = namespace("web").await;
        let attachment = CniAttachment::new("web", &web);
        let list = alone(host);
        let inside = Links::of(&web).unwrap();
        let kill = async {
            while inside.index("eth0").await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
                .await
                .unwrap();
        };
        let (added, _) = tokio::join!(engine.add(&list, &attachment), kill);
        if let Err(error) = added {
            failures += 1;
            let failed = error.failure().unwrap_or_else(|| panic!("{error}")).clone();
            assert_says(&failed, 11, &["runtime"]);
            assert_eq!(links(&web), ["lo"]);
        }
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.wait_joined(SOON).await.unwrap();
        if links(&web) == ["lo"] {
            engine.add(&list, &attachment).await.unwrap();
        }
        engine.check(&list, &attachment).await.unwrap();
        five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
        engine.del(&list, &attachment).await.unwrap();
        wait_leases(host, 0).await;
    }
    assert!(
        failures > 0,
        "the runtime was quicker than its end each time"
    );
}

/// Shorter than anybody waits.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_whose_runtime_stands_still_for_a_second_succeeds() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    for delay in [0, 5, 10, 20, 40] {
        let web = namespace("web").await;
        let attachment = CniAttachment::new("web", &web);
        let list = alone(host);
        let freeze = async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            host.kill(Daemon::Runtime, Signal::SIGSTOP).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            host.kill(Daemon::Runtime, Signal::SIGCONT).unwrap();
        };
        let (added, ()) = tokio::join!(engine.add(&list, &attachment), freeze);
        added.unwrap();
        engine.check(&list, &attachment).await.unwrap();
        engine.del(&list, &attachment).await.unwrap();
        wait_leases(host, 0).await;
    }
}

/// At moments from before the call to after it.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_whose_runtime_is_killed_in_the_middle_succeeds_at_last_with_one_lease() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    for delay in [1, 5, 10, 15, 20, 30, 40, 60, 80, 120] {
        let web = namespace("web").await;
        let attachment = CniAttachment::new("web", &web);
        let list = alone(host);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            host.restart(Daemon::Runtime).unwrap();
        };
        let (mut added, ()) = tokio::join!(engine.add(&list, &attachment), kill);
        for _ in 0..10 {
            let Err(error) = &added else { break };
            let failed = error.failure().unwrap_or_else(|| panic!("{error}"));
            assert_eq!(failed.code, 11, "{delay} ms: {failed}");
            tokio::time::sleep(Duration::from_millis(500)).await;
            added = engine.add(&list, &attachment).await;
        }
        let result = added.unwrap();
        host.wait_joined(SOON).await.unwrap();
        assert_eq!(
            only_lease(host).await.address,
            address(&result, 0).to_string()
        );
        engine.check(&list, &attachment).await.unwrap();
        five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
        engine.del(&list, &attachment).await.unwrap();
        wait_leases(host, 0).await;
    }
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_del_whose_runtime_is_killed_in_the_middle_leaves_nothing() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    for delay in [1, 5, 10, 15, 20, 30, 40, 60] {
        let web = namespace("web").await;
        let attachment = CniAttachment::new("web", &web);
        let list = alone(host);
        engine.add(&list, &attachment).await.unwrap();
        let kill = async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            host.restart(Daemon::Runtime).unwrap();
        };
        let (deleted, ()) = tokio::join!(engine.del(&list, &attachment), kill);
        deleted.unwrap();
        assert_eq!(links(&web), ["lo"], "{delay} ms");
        host.wait_joined(SOON).await.unwrap();
        wait_leases(host, 0).await;
    }
    let _ = std::fs::remove_dir(host.runtime_socket().with_file_name("gone"));
    before.wait_again(host).await;
}
