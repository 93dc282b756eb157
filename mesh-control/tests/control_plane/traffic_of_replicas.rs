//! The traffic matrix of a cluster that several replicas serve.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Api, node};
use crate::replicas::Replicas;
use crate::traffic::{matrix, report};

/// A report of so many packets to a subnet that nobody leases.
fn packets(count: u64) -> Value {
    json!({
        "data_plane": {"version": "0.1.0", "fast_path": "active", "generation": count},
        "peers": [{"subnet": "10.42.9.0/24", "tx_packets": count, "last_packet_age_ms": 5}],
    })
}

async fn told(api: &Api, node_id: &str, body: &Value) {
    let answer = report(api, node_id, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The flows that a node counted.
fn flows_of<'a>(matrix: &'a Value, node_id: &str) -> Vec<&'a Value> {
    let flows = matrix["flows"].as_array().unwrap();
    flows
        .iter()
        .filter(|flow| flow["from"] == node_id)
        .collect()
}

fn line_of<'a>(matrix: &'a Value, node_id: &str) -> &'a Value {
    let nodes = matrix["nodes"].as_array().unwrap();
    nodes
        .iter()
        .find(|node| node["node_id"] == node_id)
        .unwrap()
}

/// How many packets a node told of, 0 where nothing is known. `None`: it told more while this was answered.
fn shown(matrix: &Value, node_id: &str) -> Option<u64> {
    let packets = flows_of(matrix, node_id)
        .first()
        .map_or(0, |flow| flow["tx_packets"].as_u64().unwrap());
    let line = line_of(matrix, node_id);
    assert_eq!(
        line["reported_at"].is_null(),
        line["report_age_ms"].is_null(),
        "{matrix}"
    );
    let generation = line["data_plane"]["generation"].as_u64().unwrap_or(0);
    (generation == packets).then_some(packets)
}

/// Waits until a replica shows this report.
async fn wait_for(api: &Api, node_id: &str, packets: u64) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let matrix = matrix(api).await;
        if shown(&matrix, node_id) == Some(packets) {
            return matrix;
        }
        assert!(
            Instant::now() < deadline,
            "{packets} packets of {node_id} are not shown: {matrix}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_nodes_tell_any_replica_all_replicas_show() {
    let replicas = Replicas::start(3, "10m").await;
    let apis = replicas.apis();
    let (alpha, alpha_subnet) = apis[0]
        .register(node("alpha", "192.0.2.1"))
        .await
        .admitted();
    let (beta, beta_subnet) = apis[1].register(node("beta", "192.0.2.2")).await.admitted();
    let to = |subnet: &str, tx: u64, rx: u64| {
        json!({
            "data_plane": {"version": "0.1.0", "fast_path": "active", "generation": tx, "drops": {"mtu": 2}},
            "peers": [{"subnet": subnet, "tx_packets": tx, "tx_bytes": i64::MAX, "rx_packets": rx, "suspect": true}],
        })
    };
    told(&apis[0], &alpha, &to(&beta_subnet, 3, 4)).await;
    told(&apis[1], &beta, &to(&alpha_subnet, 4, 3)).await;
    // Who was told shows it at once.
    assert_eq!(shown(&matrix(&apis[0]).await, &alpha), Some(3));
    for api in &apis {
        wait_for(api, &alpha, 3).await;
        let matrix = wait_for(api, &beta, 4).await;
        assert_eq!(
            matrix["flows"],
            json!([{
                "from": alpha, "to": beta, "from_subnet": alpha_subnet, "to_subnet": beta_subnet,
                "tx_packets": 3, "tx_bytes": i64::MAX, "rx_packets": 4, "rx_bytes": 0,
                "kernel_tx_packets": 0, "kernel_tx_bytes": 0, "kernel_rx_packets": 0, "kernel_rx_bytes": 0,
                "dropped_packets": 0, "last_packet_age_ms": null, "suspect": true
            }, {
                "from": beta, "to": alpha, "from_subnet": beta_subnet, "to_subnet": alpha_subnet,
                "tx_packets": 4, "tx_bytes": i64::MAX, "rx_packets": 3, "rx_bytes": 0,
                "kernel_tx_packets": 0, "kernel_tx_bytes": 0, "kernel_rx_packets": 0, "kernel_rx_bytes": 0,
                "dropped_packets": 0, "last_packet_age_ms": null, "suspect": true
            }])
        );
        assert_eq!(line_of(&matrix, &beta)["data_plane"]["drops"]["mtu"], 2);
        assert_eq!(matrix["flows_left_out"], 0);
    }
}

#[tokio::test]
async fn what_a_replica_had_written_is_shown_when_it_is_killed() {
    let mut replicas = Replicas::start(3, "10m").await;
    let apis = replicas.apis();
    let (alpha, _) = apis[0]
        .register(node("alpha", "192.0.2.1"))
        .await
        .admitted();
    told(&apis[2], &alpha, &packets(3)).await;
    wait_for(&apis[0], &alpha, 3).await;
    // Perhaps written by then, perhaps not.
    told(&apis[2], &alpha, &packets(4)).await;
    replicas.running.pop().unwrap().kill();
    let deadline = Instant::now() + Duration::from_secs(60);
    for api in &apis[..2] {
        let shown = loop {
            if let Some(shown) = shown(&matrix(api).await, &alpha) {
                break shown;
            }
            assert!(Instant::now() < deadline, "old and new of one report");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!([3, 4].contains(&shown), "{shown}");
    }
    // Its agent turns to another one.
    told(&apis[0], &alpha, &packets(5)).await;
    wait_for(&apis[1], &alpha, 5).await;
    // A new one knows it from its start.
    let new = replicas.setup.start();
    assert_eq!(shown(&matrix(&Api::of(&new)).await, &alpha), Some(5));
}

#[tokio::test]
async fn what_a_replica_writes_late_does_not_take_the_place_of_what_another_was_told_since() {
    let replicas = Replicas::start(3, "10m").await;
    let apis = replicas.apis();
    let (moving, _) = apis[0]
        .register(node("moving", "192.0.2.1"))
        .await
        .admitted();
    let (staying, _) = apis[0]
        .register(node("staying", "192.0.2.2"))
        .await
        .admitted();
    told(&apis[0], &moving, &packets(3)).await;
    told(&apis[0], &staying, &packets(8)).await;
    // Most likely before it has written that; it makes no difference to what has to hold.
    replicas.running[0].signal(Signal::SIGSTOP);
    // A node's heartbeats are seconds apart; which of two came first is known better than that.
    tokio::time::sleep(Duration::from_secs(2)).await;
    told(&apis[1], &moving, &packets(4)).await;
    wait_for(&apis[2], &moving, 4).await;
    replicas.running[0].signal(Signal::SIGCONT);
    // Until then it sends clients elsewhere, because it heard nothing from the database for so long.
    let deadline = Instant::now() + Duration::from_secs(60);
    let look = || Answer::to(apis[0].request(Method::GET, "/api/traffic"));
    while look().await.status != 200 {
        assert!(Instant::now() < deadline, "it does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Written together with what the moving node told before.
    wait_for(&apis[2], &staying, 8).await;
    for api in &apis {
        wait_for(api, &moving, 4).await;
    }
    // On it goes with the next one, also back at the first.
    told(&apis[0], &moving, &packets(5)).await;
    wait_for(&apis[2], &moving, 5).await;
}

#[tokio::test]
async fn a_node_that_left_has_no_traffic_at_any_replica_also_when_it_told_something_just_before() {
    let replicas = Replicas::start(3, "10m").await;
    let apis = replicas.apis();
    let (leaving, _) = apis[0]
        .register(node("leaving", "192.0.2.1"))
        .await
        .admitted();
    let (removed, subnet) = apis[0]
        .register(node("removed", "192.0.2.2"))
        .await
        .admitted();
    let (staying, _) = apis[0]
        .register(node("staying", "192.0.2.3"))
        .await
        .admitted();
    for node_id in [&leaving, &removed] {
        told(&apis[0], node_id, &packets(3)).await;
        wait_for(&apis[1], node_id, 3).await;
        told(&apis[0], node_id, &packets(4)).await;
    }
    told(&apis[0], &staying, &packets(8)).await;
    for node_id in [&leaving, &removed] {
        assert_eq!(apis[1].deregister(node_id).await.status, 200);
    }
    let release = apis[2]
        .post("/api/subnets/release")
        .json(&json!({"subnet": subnet}));
    assert_eq!(Answer::to(release).await.status, 200);
    // What was told last is written with this.
    wait_for(&apis[2], &staying, 8).await;
    for api in &apis {
        let matrix = matrix(api).await;
        assert_eq!(shown(&matrix, &leaving), Some(0));
        assert_eq!(line_of(&matrix, &leaving)["reported_at"], Value::Null);
        assert_eq!(flows_of(&matrix, &removed), Vec::<&Value>::new());
    }
    let count = "SELECT COUNT(*) FROM reports";
    let stored = replicas.postgres.execute(&replicas.url, count).unwrap();
    assert_eq!(stored.trim(), "1");
    // Back again, it has told nothing yet.
    let again = apis[1].register(node("leaving", "192.0.2.1")).await;
    assert_eq!(again.admitted().0, leaving);
    assert_eq!(shown(&matrix(&apis[2]).await, &leaving), Some(0));
    told(&apis[2], &leaving, &packets(5)).await;
    wait_for(&apis[0], &leaving, 5).await;
}

#[tokio::test]
async fn who_tells_the_same_again_has_it_taken_note_of_and_not_written_again() {
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let (quiet, _) = apis[0]
        .register(node("quiet", "192.0.2.1"))
        .await
        .admitted();
    told(&apis[0], &quiet, &packets(3)).await;
    wait_for(&apis[1], &quiet, 3).await;
    let times = || {
        let select = "SELECT counted_at, reported_at FROM reports";
        let row = replicas.postgres.execute(&replicas.url, select).unwrap();
        let (counted, reported) = row.trim().split_once('|').unwrap();
        (
            counted.parse::<u64>().unwrap(),
            reported.parse::<u64>().unwrap(),
        )
    };
    let (counted, reported) = times();
    assert_eq!(counted, reported);
    let mut again = packets(3);
    again["peers"][0]["last_packet_age_ms"] = json!(5_000);
    told(&apis[1], &quiet, &again).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let later = loop {
        let (counted_now, reported_now) = times();
        assert_eq!(counted_now, counted, "the same was written again");
        if reported_now > reported {
            break reported_now - counted;
        }
        assert!(Instant::now() < deadline, "no note was taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // The last packet is the same one, and that much longer ago.
    let matrix = wait_for(&apis[0], &quiet, 3).await;
    assert_eq!(matrix["flows"][0]["last_packet_age_ms"], 5 + later);
}

#[tokio::test]
async fn a_database_whose_clock_was_set_back_takes_what_is_told_next() {
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let (alpha, _) = apis[0]
        .register(node("alpha", "192.0.2.1"))
        .await
        .admitted();
    told(&apis[0], &alpha, &packets(3)).await;
    wait_for(&apis[1], &alpha, 3).await;
    let update =
        "UPDATE reports SET reported_at = reported_at + 3600000, counted_at = counted_at + 3600000";
    replicas.postgres.execute(&replicas.url, update).unwrap();
    let matrix = matrix(&apis[1]).await;
    assert_eq!(line_of(&matrix, &alpha)["report_age_ms"], 0);
    told(&apis[0], &alpha, &packets(4)).await;
    wait_for(&apis[1], &alpha, 4).await;
}

#[tokio::test]
async fn a_report_about_as_many_peers_as_there_can_be_reaches_the_other_replicas() {
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let (alpha, _) = apis[0]
        .register(node("alpha", "192.0.2.1"))
        .await
        .admitted();
    let peers: Vec<_> = (0..65_536)
        .map(|n| {
            let subnet = format!("10.{}.{}.0/24", n / 256, n % 256);
            json!({"subnet": subnet, "tx_packets": 1, "tx_bytes": i64::MAX})
        })
        .collect();
    told(&apis[0], &alpha, &json!({"peers": peers})).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while matrix(&apis[1]).await["flows"].as_array().unwrap().len() != 65_536 {
        assert!(Instant::now() < deadline, "it does not show");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_the_database_the_matrix_is_a_clear_503() {
    let replicas = Replicas::start(1, "10m").await;
    replicas.postgres.stop().await.unwrap();
    let request = replicas.apis()[0].request(Method::GET, "/api/traffic");
    Answer::to(request)
        .await
        .problem(503, "database-unavailable");
}

#[tokio::test]
async fn a_database_from_before_there_were_reports_is_brought_up_to_date() {
    let mut replicas = Replicas::start(1, "10m").await;
    let (alpha, subnet) = replicas.apis()[0]
        .register(node("alpha", "192.0.2.1"))
        .await
        .admitted();
    assert!(replicas.running.pop().unwrap().stop().success());
    let before = "DROP TABLE reports, history, remembered_leases, authorities, node_credentials, join_tokens, \
                  operators, audit, ended_authorities; \
                  ALTER TABLE cluster DROP COLUMN vxlan_port, DROP COLUMN vni, DROP COLUMN held_until, \
                  DROP COLUMN node_timeout_ms, DROP COLUMN stage, DROP COLUMN credentials_revision, \
                  DROP COLUMN had_credentials; \
                  ALTER TABLE nodes DROP COLUMN overlay_mtu, DROP COLUMN left_at, DROP COLUMN succession, DROP COLUMN displaced; \
                  DELETE FROM _sqlx_migrations WHERE version >= 4";
    replicas.postgres.execute(&replicas.url, before).unwrap();
    replicas.running = (0..2).map(|_| replicas.setup.start()).collect();
    let apis = replicas.apis();
    assert_eq!(apis[0].node(&alpha).await["subnet"], subnet);
    told(&apis[0], &alpha, &packets(3)).await;
    wait_for(&apis[1], &alpha, 3).await;
}
