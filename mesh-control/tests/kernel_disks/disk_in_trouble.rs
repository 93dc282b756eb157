//! A disk that fails while the control plane runs: what needs it is answered 503 with the reason, what
//! was acknowledged stays, and when the cause is gone it goes on by itself.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::answer::{Api, node};
use crate::private_disk::PrivateDisk;
use crate::process::Setup;

/// The leases in a node list.
fn leases(nodes: &[Value]) -> Vec<(Value, Value)> {
    nodes
        .iter()
        .map(|node| (node["node_id"].clone(), node["subnet"].clone()))
        .collect()
}

#[tokio::test]
async fn a_disk_that_fills_up_refuses_registrations_and_loses_none() {
    let setup = Setup::new();
    let folder = setup.folder().join("disk");
    std::fs::create_dir(&folder).unwrap();
    let disk = PrivateDisk::tmpfs(&folder, "4m");
    let setup = setup
        .with_db_path(folder.join("control.db"))
        .with("--node-timeout", "10m");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let first = api.register(node("first", "198.51.100.1")).await.admitted();

    for round in 0..2 {
        let filling = disk.fill();
        // What is allocated in the log already may still take some.
        let mut refused = None;
        for n in 1..=200 {
            let answer = api
                .register(node(
                    &format!("host-{round}-{n}"),
                    &format!("192.0.{round}.{n}"),
                ))
                .await;
            if answer.status != 200 {
                refused = Some(answer);
                break;
            }
        }
        let refused = refused.expect("no registration was refused");
        let detail = refused.problem(503, "database-unavailable");
        assert!(
            detail.contains("disk that holds the database is full"),
            "{detail}"
        );
        let acknowledged = leases(&api.nodes().await);
        // Whoever is there lives on, and may say again who it is: nothing needs to be written.
        assert_eq!(api.heartbeat(&first.0).await.status, 200);
        let again = api.register(node("first", "198.51.100.1")).await;
        assert_eq!(again.admitted(), first);
        api.deregister(&first.0)
            .await
            .problem(503, "database-unavailable");
        assert_eq!(
            api.status(&first.0).await,
            "up",
            "what was refused did not happen"
        );

        drop(filling);
        let next = api
            .register(node(
                &format!("next-{round}"),
                &format!("198.51.100.1{round}"),
            ))
            .await;
        let next = next.admitted();
        let now = leases(&api.nodes().await);
        assert_eq!(now[..acknowledged.len()], acknowledged[..]);
        assert_eq!(now[acknowledged.len()..], [(next.0.into(), next.1.into())]);
    }
    let before = leases(&api.nodes().await);
    control_plane.kill();
    let control_plane = setup.start();
    assert_eq!(leases(&Api::of(&control_plane).nodes().await), before);
}

#[tokio::test]
async fn a_node_goes_down_in_time_although_the_disk_is_full() {
    let setup = Setup::new();
    let folder = setup.folder().join("disk");
    std::fs::create_dir(&folder).unwrap();
    let disk = PrivateDisk::tmpfs(&folder, "4m");
    let setup = setup
        .with_db_path(folder.join("control.db"))
        .with("--node-timeout", "2s");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    let filling = disk.fill();
    api.wait_for(&node_id, "down").await;
    assert_eq!(api.heartbeat(&node_id).await.status, 200);
    assert_eq!(api.status(&node_id).await, "up");
    drop(filling);
    // What could not be written then is written later: the revision shows it.
    let deadline = Instant::now() + Duration::from_secs(60);
    while api.list().await["revision"].as_i64() < Some(2) {
        assert!(
            Instant::now() < deadline,
            "the changes of status were never written"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_disk_that_turns_read_only_refuses_registrations_and_loses_none() {
    let setup = Setup::new();
    let folder = setup.folder().join("disk");
    std::fs::create_dir(&folder).unwrap();
    let disk = PrivateDisk::ext4(&folder, &setup.folder().join("image"));
    let setup = setup.with_db_path(folder.join("control.db"));
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    let before = api.list().await;
    disk.fail();
    let answer = api.register(node("b", "192.0.2.2")).await;
    let detail = answer.problem(503, "database-unavailable");
    assert!(
        detail.contains("read-only") || detail.contains("disk"),
        "{detail}"
    );
    api.deregister(&node_id)
        .await
        .problem(503, "database-unavailable");
    assert_eq!(api.heartbeat(&node_id).await.status, 200);
    let mut after = api.list().await;
    after["nodes"][0]["last_heartbeat"] = before["nodes"][0]["last_heartbeat"].clone();
    assert_eq!(after, before);
}
