//! DEL, which succeeds whatever is gone already.

use std::{fs, path::PathBuf};

use mesh_testbed::{CniAttachment, Daemon, DaemonOptions, Host, Signal, wait_until};

use crate::{
    engine::{address, alone, engine, forgetful, list, port, quilt},
    mesh::{SOON, five_of_five, links, mesh_of, namespace, only_lease, wait_leases},
    remains::Remains,
};

/// Where what was detached without the runtime is noted, beside its socket.
fn gone(host: &Host) -> PathBuf {
    host.runtime_socket().with_file_name("gone")
}

fn noted(host: &Host) -> Vec<String> {
    let notes = fs::read_dir(gone(host)).into_iter().flatten().flatten();
    notes
        .map(|note| note.file_name().into_string().unwrap())
        .collect()
}

async fn wait_nothing_noted(host: &Host) {
    wait_until("no notes", SOON, async || {
        let noted = noted(host);
        noted.is_empty().then_some(()).ok_or(noted.join(" "))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_twice_or_what_never_was_is_success_and_touches_nobody_else() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let (web, shop) = (namespace("web").await, namespace("shop").await);
    let shop_is = CniAttachment::new("shop", &shop);
    engine.add(&alone(host), &shop_is).await.unwrap();
    let before = Remains::of(host).await;
    let attachment = CniAttachment::new("web", &web);
    engine.del(&alone(host), &attachment).await.unwrap();
    engine.add(&alone(host), &attachment).await.unwrap();
    for _ in 0..2 {
        engine.del(&alone(host), &attachment).await.unwrap();
        assert_eq!(links(&web), ["lo"]);
        before.wait_again(host).await;
    }
    // Another engine, network, container or interface is somebody else, also with the namespace of this one.
    let others = [
        (
            list("quilt", "1.1.0", [quilt(host, "nomad")]),
            "shop",
            "eth0",
        ),
        (
            list("other", "1.1.0", [quilt(host, "podman")]),
            "shop",
            "eth0",
        ),
        (alone(host), "shop2", "eth0"),
        (alone(host), "shop", "eth1"),
    ];
    for (list, container, interface) in others {
        let attachment = CniAttachment::new(container, &shop).named(interface);
        forgetful(host).del(&list, &attachment).await.unwrap();
        engine.check(&alone(host), &shop_is).await.unwrap();
    }
    five_of_five(&shop, "10.42.1.1".parse().unwrap()).await;
    engine.del(&alone(host), &shop_is).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_namespace_is_gone_or_not_named_is_deleted_all_the_same() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let before = Remains::of(host).await;
    for named in [true, false] {
        for remembered in [true, false] {
            for gone in [true, false] {
                let web = namespace("web").await;
                let attachment = CniAttachment::new("web", &web);
                engine(host).add(&alone(host), &attachment).await.unwrap();
                let web = (!gone).then_some(web);
                let attachment = match named {
                    true => attachment,
                    false => CniAttachment::by_path("web", ""),
                };
                if !remembered {
                    let results = host.dir().join("cni/results");
                    fs::remove_dir_all(results).unwrap();
                }
                engine(host).del(&alone(host), &attachment).await.unwrap();
                before.wait_again(host).await;
                if let Some(web) = web {
                    assert_eq!(links(&web), ["lo"]);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_runtime_the_interface_goes_at_once_and_the_lease_when_the_runtime_is_back() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (web, shop) = (namespace("web").await, namespace("shop").await);
        let web_is = CniAttachment::new("web", &web);
        let shop_is = CniAttachment::new("shop", &shop);
        let result = engine.add(&alone(host), &web_is).await.unwrap();
        let stays = engine.add(&alone(host), &shop_is).await.unwrap();
        host.stop(Daemon::Runtime, signal, SOON).await.unwrap();
        for _ in 0..2 {
            engine.del(&alone(host), &web_is).await.unwrap();
            assert_eq!(links(&web), ["lo"]);
            assert!(!links(host.netns()).contains(&port(&result).to_owned()));
        }
        assert!(links(host.netns()).contains(&port(&stays).to_owned()));
        assert_eq!(noted(host), [port(&result)]);
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.wait_joined(SOON).await.unwrap();
        wait_leases(host, 1).await;
        wait_nothing_noted(host).await;
        let lease = only_lease(host).await;
        assert_eq!(lease.address, address(&stays, 0).to_string());
        engine.check(&alone(host), &shop_is).await.unwrap();
        engine.del(&alone(host), &shop_is).await.unwrap();
        wait_leases(host, 0).await;
    }
    let _ = fs::remove_dir(gone(host));
    before.wait_again(host).await;
}

/// Also one whose namespace went as well while nobody was there to see it.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_runtime_a_container_that_is_gone_is_deleted_and_forgotten_when_it_is_back() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    engine.add(&alone(host), &attachment).await.unwrap();
    host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    drop(web);
    engine.del(&alone(host), &attachment).await.unwrap();
    host.start_runtime(&DaemonOptions::new()).await.unwrap();
    wait_leases(host, 0).await;
    wait_nothing_noted(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_added_anew_keeps_its_lease_although_it_was_deleted_without_a_runtime()
{
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    for round in 0..3 {
        let web = namespace("web").await;
        let attachment = CniAttachment::new("web", &web);
        engine.add(&alone(host), &attachment).await.unwrap();
        host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
            .await
            .unwrap();
        engine.del(&alone(host), &attachment).await.unwrap();
        // The same id in the same namespace, or in another one.
        let anew = match round {
            0 => web,
            _ => namespace("anew").await,
        };
        let attachment = CniAttachment::new("web", &anew);
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        let result = engine.add(&alone(host), &attachment).await.unwrap();
        host.wait_joined(SOON).await.unwrap();
        wait_nothing_noted(host).await;
        let lease = only_lease(host).await;
        assert_eq!(lease.address, address(&result, 0).to_string());
        assert_eq!(lease.leaked, "");
        engine.check(&alone(host), &attachment).await.unwrap();
        five_of_five(&anew, "10.42.1.1".parse().unwrap()).await;
        engine.del(&alone(host), &attachment).await.unwrap();
        wait_leases(host, 0).await;
    }
}

/// Frozen is not stopped: nobody knows whether it will go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_deleted_while_the_runtime_is_frozen_is_gone_once_it_goes_on() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    engine.add(&alone(host), &attachment).await.unwrap();
    host.kill(Daemon::Runtime, Signal::SIGSTOP).unwrap();
    let deleted = engine.del(&alone(host), &attachment).await;
    host.kill(Daemon::Runtime, Signal::SIGCONT).unwrap();
    deleted.unwrap();
    assert_eq!(links(&web), ["lo"]);
    wait_leases(host, 0).await;
    wait_nothing_noted(host).await;
    let _ = fs::remove_dir(gone(host));
    before.wait_again(host).await;
}
