//! What heartbeats carry, and the traffic matrix that comes of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Api, node};
use crate::process::Setup;

pub(crate) async fn matrix(api: &Api) -> Value {
    let answer = Answer::to(api.request(Method::GET, "/api/traffic")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

pub(crate) async fn report(api: &Api, node_id: &str, body: &Value) -> Answer {
    Answer::to(
        api.post(&format!("/api/nodes/{node_id}/heartbeat"))
            .json(body),
    )
    .await
}

/// The matrix without what changes from one look to the next.
fn without_ages(mut matrix: Value) -> Value {
    for node in matrix["nodes"].as_array_mut().unwrap() {
        node.as_object_mut().unwrap().remove("report_age_ms");
    }
    matrix
}

#[tokio::test]
async fn what_two_nodes_report_is_the_traffic_between_them() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (alpha, alpha_subnet) = api.register(node("alpha", "192.0.2.1")).await.admitted();
    let (beta, beta_subnet) = api.register(node("beta", "192.0.2.2")).await.admitted();
    let to_beta = json!({
        "data_plane": {"version": "0.1.0", "fast_path": "active", "generation": 7, "drops": {"mtu": 2}},
        "peers": [{"subnet": beta_subnet, "tx_packets": 3, "tx_bytes": 300, "last_packet_age_ms": 5}],
    });
    assert_eq!(report(&api, &alpha, &to_beta).await.status, 200);
    let matrix = matrix(&api).await;
    assert_eq!(
        matrix["flows"],
        json!([{
            "from": alpha, "to": beta, "from_subnet": alpha_subnet, "to_subnet": beta_subnet,
            "tx_packets": 3, "tx_bytes": 300, "rx_packets": 0, "rx_bytes": 0,
            "kernel_tx_packets": 0, "kernel_tx_bytes": 0, "kernel_rx_packets": 0, "kernel_rx_bytes": 0,
            "dropped_packets": 0, "last_packet_age_ms": 5, "suspect": false
        }])
    );
    assert_eq!(matrix["flows_left_out"], 0);
    assert_eq!(matrix["nodes"][0]["hostname"], "alpha");
    assert_eq!(matrix["nodes"][0]["data_plane"]["fast_path"], "active");
    assert_eq!(matrix["nodes"][0]["data_plane"]["drops"]["mtu"], 2);
    assert!(matrix["nodes"][0]["reported_at"].as_i64().unwrap() > 0);
    assert!(matrix["nodes"][0]["report_age_ms"].is_u64());
    assert_eq!(matrix["nodes"][1]["reported_at"], Value::Null);
    assert_eq!(matrix["nodes"][1]["report_age_ms"], Value::Null);
    assert_eq!(matrix["nodes"][1]["data_plane"], Value::Null);
}

#[tokio::test]
async fn a_deregistered_node_has_no_traffic_any_more() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (alpha, _) = api.register(node("alpha", "192.0.2.1")).await.admitted();
    let some = json!({"peers": [{"subnet": "10.42.9.0/24", "rx_packets": 1}]});
    assert_eq!(report(&api, &alpha, &some).await.status, 200);
    let before = matrix(&api).await;
    assert_eq!(before["flows"][0]["to"], Value::Null);
    assert_eq!(api.deregister(&alpha).await.status, 200);
    let after = matrix(&api).await;
    assert_eq!(after["flows"], json!([]));
    assert_eq!(after["nodes"][0]["reported_at"], Value::Null);
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_refused_and_changes_nothing() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (alpha, _) = api.register(node("alpha", "192.0.2.1")).await.admitted();
    let good = json!({"data_plane": {"generation": 1}});
    assert_eq!(report(&api, &alpha, &good).await.status, 200);
    let before = without_ages(matrix(&api).await);
    let wrong = json!({"peers": [{"subnet": "10.42.9.1/24"}]});
    let refused = report(&api, &alpha, &wrong).await;
    refused.problem(422, "invalid-fields");
    assert_eq!(refused.body["errors"][0]["pointer"], "#/peers/0/subnet");
    let path = format!("/api/nodes/{alpha}/heartbeat");
    let torn = api
        .post(&path)
        .header("content-type", "application/json")
        .body("{");
    Answer::to(torn).await.problem(400, "malformed");
    assert_eq!(without_ages(matrix(&api).await), before);
    report(&api, "nobody", &good)
        .await
        .problem(404, "unknown-node");
}

#[tokio::test]
async fn a_heartbeat_with_another_body_or_none_counts_as_before() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (alpha, _) = api.register(node("alpha", "192.0.2.1")).await.admitted();
    let path = format!("/api/nodes/{alpha}/heartbeat");
    for request in [
        api.post(&path),
        api.post(&path).body("not json, and does not say so"),
        api.post(&path).header("content-type", "application/json"),
    ] {
        assert_eq!(Answer::to(request).await.status, 200);
    }
    assert_eq!(matrix(&api).await["nodes"][0]["reported_at"], Value::Null);
}

#[tokio::test]
async fn a_report_about_as_many_peers_as_there_can_be_is_taken_and_one_more_megabyte_is_not() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (alpha, _) = api.register(node("alpha", "192.0.2.1")).await.admitted();
    let peers: Vec<_> = (0..65_536)
        .map(|n| {
            let subnet = format!("10.{}.{}.0/24", n / 256, n % 256);
            json!({"subnet": subnet, "tx_packets": 1, "tx_bytes": i64::MAX})
        })
        .collect();
    let answer = report(&api, &alpha, &json!({"peers": peers})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        matrix(&api).await["flows"].as_array().unwrap().len(),
        65_536
    );
    let too_long = json!({"data_plane": {"reason": "x".repeat(29 << 20)}});
    report(&api, &alpha, &too_long)
        .await
        .problem(413, "body-too-large");
}
