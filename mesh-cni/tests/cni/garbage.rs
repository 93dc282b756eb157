//! GC and STATUS.

use mesh_client::{
    Maintenance,
    mesh::{AllocateAddressRequest, Owner},
};
use mesh_testbed::{CniAttachment, Daemon, DaemonOptions, Host, Signal, Testbed, wait_until};
use serde_json::Value;

use crate::{
    engine::{alone, assert_says, engine, failure, forgetful, list, quilt},
    mesh::{SOON, client, five_of_five, ip, leases, links, mesh_of, namespace, needed, owner_of},
};

/// Attaches a container of another list.
async fn added(host: &Host, list: &Value, container: &str, label: &str) -> mesh_testbed::NetNs {
    let netns = namespace(label).await;
    let attachment = CniAttachment::new(container, &netns);
    engine(host).add(list, &attachment).await.unwrap();
    netns
}

async fn owners(host: &Host) -> Vec<String> {
    let mut owners: Vec<String> = leases(host).await.iter().map(owner_of).collect();
    owners.sort();
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_what_the_same_engine_and_network_left_and_never_what_lives() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let ours = alone(host);
    let others = [
        list("quilt", "1.1.0", [quilt(host, "nomad")]),
        list("other", "1.1.0", [quilt(host, "podman")]),
    ];
    let lives = added(host, &ours, "lives", "lives").await;
    let harmed = added(host, &ours, "harmed", "harmed").await;
    let gone = added(host, &ours, "gone", "gone").await;
    let kept = added(host, &ours, "kept", "kept").await;
    let mut theirs = Vec::new();
    for (index, other) in others.iter().enumerate() {
        theirs.push(added(host, other, "theirs", &format!("theirs{index}")).await);
    }
    // Their interfaces are gone; those of other engines and networks too.
    for netns in [&harmed, &kept, &theirs[0], &theirs[1]] {
        ip(netns, "link del eth0");
    }
    let before = links(host.netns()).len();
    drop(gone);
    // The kernel takes its time, and while the interface is there it is no garbage.
    wait_until("the end of its interface", SOON, async || {
        let now = links(host.netns()).len();
        (now < before).then_some(()).ok_or(now)
    })
    .await
    .unwrap();
    // An engine that lost all it knew of them, but for one.
    let lost = forgetful(host);
    lost.gc(&ours, &[("kept", "eth0")]).await.unwrap();
    let left = [
        "nomad/quilt/theirs/eth0",
        "podman/other/theirs/eth0",
        "podman/quilt/kept/eth0",
        "podman/quilt/lives/eth0",
    ];
    assert_eq!(owners(host).await, left);
    five_of_five(&lives, "10.42.1.1".parse().unwrap()).await;
    let lives_is = CniAttachment::new("lives", &lives);
    engine(host).check(&ours, &lives_is).await.unwrap();
    // Again, without exception: what lives stays even then.
    lost.gc(&ours, &[]).await.unwrap();
    assert_eq!(owners(host).await, [left[0], left[1], left[3]]);
    lost.gc(&others[0], &[]).await.unwrap();
    lost.gc(&others[1], &[]).await.unwrap();
    assert_eq!(owners(host).await, [left[3]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_remembers_and_does_not_name_is_deleted_although_it_lives() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let ours = alone(host);
    let stale = added(host, &ours, "stale", "stale").await;
    let valid = added(host, &ours, "valid", "valid").await;
    engine(host).gc(&ours, &[("valid", "eth0")]).await.unwrap();
    assert_eq!(owners(host).await, ["podman/quilt/valid/eth0"]);
    assert_eq!(links(&stale), ["lo"]);
    assert_eq!(links(&valid), ["eth0", "lo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_that_of_a_node_that_can_serve() {
    let testbed = needed(Testbed::builder().hosts(1).build().await);
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let list = alone(host);
    let status = async |words: &str| {
        assert_says(&failure(engine.status(&list).await), 50, &[words]);
    };
    status("runtime").await;
    needed(host.start_runtime(&DaemonOptions::new()).await);
    status("subnet").await;
    needed(testbed.control().start(&DaemonOptions::new()).await);
    needed(host.start_agent(&DaemonOptions::new()).await);
    engine.status(&list).await.unwrap();

    // Drained: what is new goes elsewhere, and what is here stays.
    let here = added(host, &list, "here", "here").await;
    let mut maintenance = Maintenance::connect(&host.runtime_socket()).await.unwrap();
    maintenance.drain(Some(true)).await.unwrap();
    status("drained").await;
    let late = namespace("late").await;
    let refused = failure(engine.add(&list, &CniAttachment::new("late", &late)).await);
    assert_says(&refused, 11, &["drained", "meshctl drain --undo"]);
    assert_eq!(links(&late), ["lo"]);
    let attachment = CniAttachment::new("here", &here);
    engine.check(&list, &attachment).await.unwrap();
    engine.del(&list, &attachment).await.unwrap();
    assert_eq!(links(&here), ["lo"]);
    maintenance.drain(Some(false)).await.unwrap();
    engine.status(&list).await.unwrap();

    let mut runtime = client(host).await;
    // The last of the subnet is the node's own, for probes.
    let free = 252;
    for number in 0..free {
        let owner = Owner {
            engine: "test".to_owned(),
            network: "quilt".to_owned(),
            container: format!("c{number}"),
            interface: "eth0".to_owned(),
        };
        let request = AllocateAddressRequest {
            owner: Some(owner),
            ..Default::default()
        };
        runtime.allocate(request).await.unwrap();
    }
    status("10.42.1.0/24").await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let failed = failure(engine.add(&list, &attachment).await);
    assert_says(&failed, 100, &["10.42.1.0/24"]);
    assert_eq!(links(&web), ["lo"]);

    needed(host.stop(Daemon::Runtime, Signal::SIGKILL, SOON).await);
    status("runtime").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_not_collected_without_a_runtime_and_the_engine_is_told() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    let failed = engine(host).gc(&alone(host), &[]).await.unwrap_err();
    assert_eq!(failed.len(), 1);
    let failed = failed[0].failure().unwrap();
    assert_says(failed, 11, &["runtime"]);
}
