//! Who gets which subnet.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::answer::{Answer, Api, keyed, node};
use crate::process::Setup;

#[tokio::test]
async fn nodes_get_subnets_from_the_first_upwards() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    for (n, subnet) in [
        (1, "10.42.1.0/24"),
        (2, "10.42.2.0/24"),
        (3, "10.42.3.0/24"),
    ] {
        let answer = api
            .register(node(&format!("host-{n}"), &format!("192.0.2.{n}")))
            .await;
        assert_eq!(answer.admitted().1, subnet);
    }
}

#[tokio::test]
async fn the_node_list_shows_what_the_contract_says() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let empty = api.list().await;
    assert_eq!(
        (&empty["revision"], &empty["nodes"]),
        (&json!(0), &json!([]))
    );
    let mut body = node("a", "192.0.2.1");
    body["cpu_cores"] = json!(4);
    body["ram_mb"] = json!(8192);
    let (node_id, subnet) = api.register(body).await.admitted();
    let shown = api.nodes().await.remove(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for time in ["registered_at", "last_heartbeat"] {
        let seconds = shown[time].as_u64().unwrap();
        assert!(
            now.abs_diff(seconds) < 3600,
            "{time} is {seconds}, now is {now}"
        );
    }
    assert_eq!(
        shown,
        json!({"node_id": node_id, "hostname": "a", "host_ip": "192.0.2.1", "subnet": subnet,
            "cpu_cores": 4, "ram_mb": 8192, "status": "up", "deregistered": false, "left": false,
            "registered_at": shown["registered_at"], "last_heartbeat": shown["last_heartbeat"],
            "etag": shown["etag"]})
    );
    assert!(shown["etag"].is_string());
}

#[tokio::test]
async fn registering_again_gives_the_same_node_and_subnet() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let first = api.register(node("a", "192.0.2.1")).await.admitted();
    let other = api.register(node("b", "192.0.2.2")).await.admitted();
    assert_eq!(api.register(node("a", "192.0.2.1")).await.admitted(), first);
    assert_ne!(first, other);
    assert_eq!(api.nodes().await.len(), 2);
}

#[tokio::test]
async fn a_node_with_a_key_keeps_its_subnet_when_its_address_changes() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let first = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(
        api.register(keyed("k-1", "a", "192.0.2.9"))
            .await
            .admitted(),
        first
    );
    let shown = api.node(&first.0).await;
    assert_eq!(
        (&shown["host_ip"], &shown["status"]),
        (&json!("192.0.2.9"), &json!("up"))
    );
    // The address it left is free for another.
    assert_ne!(
        api.register(keyed("k-2", "b", "192.0.2.1"))
            .await
            .admitted(),
        first
    );
}

#[tokio::test]
async fn a_node_whose_agent_begins_to_send_a_key_keeps_its_subnet() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let first = api.register(node("a", "192.0.2.1")).await.admitted();
    assert_eq!(
        api.register(keyed("k-1", "a", "192.0.2.1"))
            .await
            .admitted(),
        first
    );
    assert_eq!(
        api.register(keyed("k-1", "a", "192.0.2.7"))
            .await
            .admitted(),
        first
    );
}

#[tokio::test]
async fn an_address_of_a_live_node_is_refused_with_its_holder() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (holder, _) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    api.register(keyed("k-2", "b", "192.0.2.2"))
        .await
        .admitted();
    let before = api.list().await;
    for claim in [
        node("other", "192.0.2.1"),
        keyed("k-9", "a", "192.0.2.1"),
        keyed("k-9", "other", "192.0.2.1"),
        keyed("k-2", "b", "192.0.2.1"),
    ] {
        let answer = api.register(claim).await;
        let detail = answer.problem(409, "in-use");
        assert!(
            detail.contains("this host_ip is in use by the live node a"),
            "{detail}"
        );
        assert_eq!(
            answer.body["holder"],
            json!({"node_id": holder, "hostname": "a", "host_ip": "192.0.2.1"})
        );
    }
    assert_eq!(api.list().await, before, "a refusal changes nothing");
}

#[tokio::test]
async fn a_copied_key_on_a_second_host_is_refused_with_its_holder() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (holder, _) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    let answer = api.register(keyed("k-1", "clone", "192.0.2.2")).await;
    let detail = answer.problem(409, "in-use");
    assert!(
        detail.contains("this node_key is in use by the live node a"),
        "{detail}"
    );
    assert_eq!(answer.body["holder"]["node_id"], holder);
}

#[tokio::test]
async fn a_dead_nodes_address_goes_to_the_next_but_its_subnet_does_not() {
    let control_plane = Setup::new().with("--node-timeout", "2s").start();
    let api = Api::of(&control_plane);
    let dead = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    api.wait_for(&dead.0, "down").await;
    let next = api
        .register(keyed("k-2", "b", "192.0.2.1"))
        .await
        .admitted();
    assert_ne!(next, dead);
    // It was only cut off: it may not come up beside the other.
    api.heartbeat(&dead.0).await.problem(404, "unknown-node");
    assert_eq!(api.status(&dead.0).await, "down");
    // At another address it is itself again.
    assert_eq!(
        api.register(keyed("k-1", "a", "192.0.2.3"))
            .await
            .admitted(),
        dead
    );
}

#[tokio::test]
async fn a_host_that_lost_its_state_is_its_node_again_once_that_is_silent() {
    let control_plane = Setup::new().with("--node-timeout", "2s").start();
    let api = Api::of(&control_plane);
    let first = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    // As its agent does, it goes on trying while the node that it was still counts as up.
    let deadline = Instant::now() + Duration::from_secs(60);
    let again = loop {
        let answer = api.register(keyed("k-2", "a", "192.0.2.1")).await;
        if answer.status == 200 {
            break answer.admitted();
        }
        answer.problem(409, "in-use");
        assert_eq!(answer.body["holder"]["node_id"], first.0);
        assert!(Instant::now() < deadline, "it never got in: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(again, first);
    assert_eq!(api.nodes().await.len(), 1);
    let said = control_plane
        .until_logged("name and address and another key")
        .await;
    assert_eq!(said.len(), 1, "{said:#?}");
    // The key that it had is nobody's now, and that of today is known everywhere.
    let stranger = api
        .register(keyed("k-1", "a", "192.0.2.2"))
        .await
        .admitted();
    assert!(stranger.0 != first.0 && stranger.1 != first.1);
    assert_eq!(
        api.register(keyed("k-2", "a", "192.0.2.3"))
            .await
            .admitted(),
        first
    );
}

#[tokio::test]
async fn a_host_that_lost_its_state_after_it_deregistered_is_its_node_again_at_once() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let first = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(api.deregister(&first.0).await.status, 200);
    assert_eq!(
        api.register(keyed("k-2", "a", "192.0.2.1"))
            .await
            .admitted(),
        first
    );
    assert_eq!(api.status(&first.0).await, "up");
}

#[tokio::test]
async fn a_key_says_more_than_name_and_address() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let known = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    let silent = api
        .register(keyed("k-2", "b", "192.0.2.2"))
        .await
        .admitted();
    for node_id in [&known.0, &silent.0] {
        assert_eq!(api.deregister(node_id).await.status, 200);
    }
    let moved = keyed("k-1", "b", "192.0.2.2");
    assert_eq!(api.register(moved).await.admitted(), known);
    assert_eq!(api.status(&silent.0).await, "down");
}

#[tokio::test]
async fn a_deregistered_node_comes_back_with_its_subnet() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    for body in [node("a", "192.0.2.1"), keyed("k-2", "b", "192.0.2.2")] {
        let first = api.register(body.clone()).await.admitted();
        assert_eq!(api.deregister(&first.0).await.status, 200);
        let other = api.register(node("c", "192.0.2.3")).await.admitted();
        assert_ne!(other.1, first.1, "a deregistered node keeps its subnet");
        assert_eq!(api.register(body).await.admitted(), first);
        assert_eq!(api.status(&first.0).await, "up");
    }
}

#[tokio::test]
async fn every_visible_change_raises_the_revision_and_nothing_else_does() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let revision = async || api.list().await["revision"].as_i64().unwrap();
    let (node_id, _) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(revision().await, 1);
    api.register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    api.heartbeat(&node_id).await;
    api.register(node("b", "192.0.2.1"))
        .await
        .problem(409, "in-use");
    assert_eq!(revision().await, 1);
    api.register(keyed("k-1", "a", "192.0.2.2"))
        .await
        .admitted();
    assert_eq!(revision().await, 2);
    assert_eq!(api.deregister(&node_id).await.status, 200);
    assert_eq!(revision().await, 3);
    assert_eq!(
        api.deregister(&node_id).await.status,
        200,
        "a repeated call is success"
    );
    assert_eq!(revision().await, 3);
}

#[tokio::test]
async fn nodes_that_register_at_once_get_distinct_subnets() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let registrations: Vec<_> = (1..=120)
        .map(|n| {
            let api = api.clone();
            // Each node three times at once: a retry that overlaps its first try.
            tokio::spawn(async move {
                let n = n % 40;
                api.register(node(&format!("host-{n}"), &format!("192.0.2.{n}")))
                    .await
                    .admitted()
            })
        })
        .collect();
    let mut admitted = BTreeSet::new();
    for registration in registrations {
        admitted.insert(registration.await.unwrap());
    }
    let nodes: BTreeSet<_> = admitted.iter().map(|(node_id, _)| node_id).collect();
    let subnets: BTreeSet<_> = admitted.iter().map(|(_, subnet)| subnet.clone()).collect();
    assert_eq!((admitted.len(), nodes.len(), subnets.len()), (40, 40, 40));
    let expected: BTreeSet<_> = (1..=40).map(|n| format!("10.42.{n}.0/24")).collect();
    assert_eq!(subnets, expected, "no subnet is skipped");
}

#[tokio::test]
async fn of_300_hosts_at_once_255_get_a_subnet_each_and_45_are_told_that_none_is_left() {
    let control_plane = Setup::new().start();
    three_hundred_at_once(&[Api::of(&control_plane)]).await;
}

/// Registers 300 hosts at once, at these control planes by turns.
pub(crate) async fn three_hundred_at_once(apis: &[Api]) {
    let registrations: Vec<_> = (0..300)
        .map(|n| {
            let api = apis[n % apis.len()].clone();
            let body = node(
                &format!("host-{n}"),
                &format!("198.51.{}.{}", n / 100, n % 100 + 1),
            );
            tokio::spawn(async move { api.register(body).await })
        })
        .collect();
    let (mut subnets, mut refused) = (BTreeSet::new(), 0);
    for registration in registrations {
        let answer = registration.await.unwrap();
        if answer.status == 200 {
            assert!(
                subnets.insert(answer.admitted().1),
                "a subnet has two holders"
            );
        } else {
            let detail = answer.problem(503, "subnets-exhausted");
            assert!(detail.contains("all 255 subnets"), "{detail}");
            refused += 1;
        }
    }
    let expected: BTreeSet<_> = (1..=255).map(|n| format!("10.42.{n}.0/24")).collect();
    assert_eq!((subnets, refused), (expected, 45));
    for api in apis {
        assert_eq!(api.nodes().await.len(), 255);
    }
}

#[tokio::test]
async fn a_cluster_of_65535_nodes_hands_out_subnets_of_a_slash_8() {
    let control_plane = Setup::new().with("--cluster-cidr", "10.0.0.0/8").start();
    let api = Api::of(&control_plane);
    let first = api.register(node("a", "192.0.2.1")).await.admitted();
    assert_eq!(first.1, "10.0.1.0/24");
    let all: Value = json!({"cidr": "10.128.0.0/9", "reason": "the other half"});
    let answer = Answer::to(api.post("/api/subnets/reserve").json(&all)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let list = Answer::to(api.request(Method::GET, "/api/subnets"))
        .await
        .body;
    assert_eq!(
        (&list["total"], &list["reserved"], &list["free"]),
        (&json!(65_535), &json!(32_768), &json!(32_766))
    );
}

#[tokio::test]
async fn of_hosts_that_race_for_one_address_one_is_admitted() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let registrations: Vec<_> = (1..=20)
        .map(|n| {
            let api = api.clone();
            let key = (n % 2 == 0).then(|| json!(format!("k-{n}")));
            let body =
                json!({"hostname": format!("host-{n}"), "host_ip": "192.0.2.1", "node_key": key});
            tokio::spawn(async move { api.register(body).await })
        })
        .collect();
    let mut admitted = 0;
    for registration in registrations {
        let answer = registration.await.unwrap();
        if answer.status == 200 {
            admitted += 1;
        } else {
            answer.problem(409, "in-use");
        }
    }
    assert_eq!(admitted, 1);
    assert_eq!(api.nodes().await.len(), 1);
}

#[tokio::test]
async fn the_schema_itself_refuses_what_must_never_be() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    for n in 1..=2 {
        api.register(keyed(&format!("k-{n}"), "a", &format!("192.0.2.{n}")))
            .await
            .admitted();
    }
    assert!(control_plane.stop().success());
    let mut connection = setup.database().await;
    for (what, statement) in [
        (
            "a subnet with two holders",
            "INSERT INTO leases SELECT 1, 'other', 0, NULL",
        ),
        (
            "a node with two subnets",
            "INSERT INTO leases SELECT 9, node_id, 0, NULL FROM nodes LIMIT 1",
        ),
        (
            "a lease of nobody's",
            "INSERT INTO leases VALUES (9, 'nobody', 0, NULL)",
        ),
        (
            "the zero subnet",
            "INSERT INTO leases VALUES (0, NULL, 0, 1)",
        ),
        (
            "two holders of an address",
            "UPDATE nodes SET host_ip = '192.0.2.1'",
        ),
        ("two nodes with a key", "UPDATE nodes SET node_key = 'k-1'"),
        (
            "a dismissed node that is up",
            "UPDATE nodes SET must_register = 1",
        ),
    ] {
        let error = sqlx::query(statement)
            .execute(&mut connection)
            .await
            .expect_err(what);
        assert!(
            error.to_string().contains("constraint failed"),
            "{what}: {error}"
        );
    }
    connection.close().await.unwrap();
}

#[tokio::test]
async fn the_256th_node_is_refused_and_nothing_is_lost() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let mut leases = Vec::new();
    for n in 1..=255 {
        let answer = api
            .register(node(&format!("host-{n}"), &format!("198.51.100.{n}")))
            .await;
        leases.push(answer.admitted());
        assert_eq!(leases[n - 1].1, format!("10.42.{n}.0/24"));
    }
    for down in [7, 8] {
        assert_eq!(api.deregister(&leases[down].0).await.status, 200);
    }
    let before = api.list().await;
    let answer = api.register(node("one-too-many", "192.0.2.1")).await;
    let detail = answer.problem(503, "subnets-exhausted");
    assert!(
        detail.contains("all 255 subnets of 10.42.0.0/16 are leased, 2 of them"),
        "{detail}"
    );
    assert_eq!(answer.body["subnets"], 255);
    assert_eq!(answer.body["held_by_down_nodes"], 2);
    assert_eq!(api.list().await, before);
    // Those that are there, up or down, still come and go; also after a crash.
    control_plane.kill();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    for n in [1, 8, 9, 255] {
        let answer = api
            .register(node(&format!("host-{n}"), &format!("198.51.100.{n}")))
            .await;
        assert_eq!(answer.admitted(), leases[n - 1]);
    }
    api.register(node("one-too-many", "192.0.2.1"))
        .await
        .problem(503, "subnets-exhausted");
    assert_eq!(api.nodes().await.len(), 255);
}
