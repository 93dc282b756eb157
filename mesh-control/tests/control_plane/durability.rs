//! What was acknowledged is there after a restart, however the process ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::answer::{Answer, Api, keyed, node};
use crate::process::Setup;

#[tokio::test]
async fn a_restart_loses_nothing() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    api.register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    let (left, _) = api.register(node("b", "192.0.2.2")).await.admitted();
    api.register(node("c", "192.0.2.3")).await.admitted();
    api.deregister(&left).await;
    let before = api.list().await;
    assert!(control_plane.stop().success());

    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(api.list().await, before);
    let next = api.register(node("d", "192.0.2.4")).await.admitted();
    assert_eq!(next.1, "10.42.4.0/24");
}

/// Registers from many tasks and kills the process in the midst of it, several times over.
#[tokio::test]
async fn sigkill_loses_no_acknowledged_lease() {
    let setup = Setup::new();
    let mut acknowledged: BTreeMap<String, (String, String)> = BTreeMap::new();
    for round in 0..4_u8 {
        let control_plane = setup.start();
        let api = Api::of(&control_plane);
        let (answers, mut answered) = tokio::sync::mpsc::channel(64);
        for n in 1..=40 {
            let (api, answers) = (api.clone(), answers.clone());
            tokio::spawn(async move {
                let hostname = format!("host-{round}-{n}");
                let body = node(&hostname, &format!("192.0.{round}.{n}"));
                let request = api.post("/api/nodes/register").json(&body);
                // No answer is no acknowledgement: the process is gone.
                if let Ok(answer) = Answer::try_to(request).await {
                    answers.send((hostname, answer.admitted())).await.ok();
                }
            });
        }
        drop(answers);
        for _ in 0..10 {
            let (hostname, lease) = answered.recv().await.unwrap();
            acknowledged.insert(hostname, lease);
        }
        control_plane.kill();
        while let Some((hostname, lease)) = answered.recv().await {
            acknowledged.insert(hostname, lease);
        }
    }
    let control_plane = setup.start();
    let nodes = Api::of(&control_plane).nodes().await;
    let text = |node: &serde_json::Value, member: &str| node[member].as_str().unwrap().to_owned();
    let stored: BTreeMap<_, _> = nodes
        .iter()
        .map(|node| {
            (
                text(node, "hostname"),
                (text(node, "node_id"), text(node, "subnet")),
            )
        })
        .collect();
    assert!(acknowledged.len() >= 40);
    for (hostname, lease) in &acknowledged {
        assert_eq!(stored.get(hostname), Some(lease), "{hostname}");
    }
    let subnets: BTreeSet<_> = nodes.iter().map(|node| text(node, "subnet")).collect();
    assert_eq!(subnets.len(), nodes.len(), "a subnet has two holders");
}

#[tokio::test]
async fn a_stop_finishes_the_requests_under_way() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let registrations: Vec<_> = (1..=40)
        .map(|n| {
            let request = api
                .post("/api/nodes/register")
                .json(&node(&format!("host-{n}"), &format!("192.0.2.{n}")));
            tokio::spawn(Answer::try_to(request))
        })
        .collect();
    // Some are answered, some are not, some have not arrived.
    let deadline = Instant::now() + Duration::from_secs(60);
    while api.nodes().await.is_empty() {
        assert!(Instant::now() < deadline, "nobody is registered");
        tokio::task::yield_now().await;
    }
    control_plane.signal(Signal::SIGTERM);
    let mut acknowledged = BTreeSet::new();
    for registration in registrations {
        if let Ok(answer) = registration.await.unwrap() {
            acknowledged.insert(answer.admitted().0);
        }
    }
    assert!(!acknowledged.is_empty());
    assert!(control_plane.stop().success());
    let control_plane = setup.start();
    let nodes = Api::of(&control_plane).nodes().await;
    let stored: BTreeSet<_> = nodes
        .iter()
        .map(|node| node["node_id"].as_str().unwrap().to_owned())
        .collect();
    assert!(acknowledged.is_subset(&stored));
}
