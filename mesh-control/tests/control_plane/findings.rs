//! What is not as it should be, as operators are told.

use std::time::Duration;

use mesh_rest::findings::ClusterFindings;
use mesh_testbed::wait_until;
use reqwest::Method;
use serde_json::json;

use crate::answer::{Answer, Api, node};
use crate::process::Setup;
use crate::traffic::report;

async fn findings(api: &Api) -> ClusterFindings<'static> {
    let answer = Answer::to(api.request(Method::GET, "/api/findings")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_value(answer.body).unwrap()
}

fn codes(told: &ClusterFindings<'_>) -> Vec<String> {
    told.findings.iter().map(|it| it.code.clone()).collect()
}

#[tokio::test]
async fn what_a_node_reports_is_told_with_its_name_until_it_is_gone() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (alpha, _) = api.register(node("alpha", "192.0.2.1")).await.admitted();
    let before = codes(&findings(&api).await);
    let finding = json!({
        "code": "foreign-route", "severity": "error", "title": "A route", "observed": "10.42.9.0/24 dev eth1",
        "breaks": "it", "remedy": "mend it", "since": 1_800_000_000,
    });
    let bad = json!({"data_plane": {"version": "0.1.0", "findings": [finding]}});
    assert_eq!(report(&api, &alpha, &bad).await.status, 200);
    let told = findings(&api).await;
    assert_eq!(codes(&told), before);
    let [version] = &told.versions[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (version.node_id.as_str(), &*version.version),
        (alpha.as_str(), "0.1.0")
    );
    let [reporting] = &told.nodes[..] else {
        panic!("{told:?}");
    };
    assert_eq!(reporting.hostname, "alpha");
    let shown = serde_json::to_value(&reporting.findings[0]).unwrap();
    assert_eq!(shown, finding);
    let good = json!({"data_plane": {"version": "0.1.0"}});
    assert_eq!(report(&api, &alpha, &good).await.status, 200);
    assert_eq!(findings(&api).await.nodes, []);
}

#[tokio::test]
async fn silent_and_stopped_nodes_are_told_since_their_last_heartbeat() {
    let control_plane = Setup::new().with("--node-timeout", "300ms").start();
    let api = Api::of(&control_plane);
    let (_, _) = api.register(node("alpha", "192.0.2.1")).await.admitted();
    let (beta, _) = api.register(node("beta", "192.0.2.2")).await.admitted();
    assert_eq!(api.deregister(&beta).await.status, 200);
    wait_until("a word on alpha", Duration::from_secs(20), async || {
        let told = findings(&api).await;
        let of = |code: &str| told.findings.iter().find(|it| it.code == code);
        match (of("nodes-silent"), of("nodes-stopped")) {
            (Some(silent), Some(stopped)) => {
                assert!(silent.observed.contains("alpha ("), "{silent:?}");
                assert!(stopped.observed.contains("beta ("), "{stopped:?}");
                assert!(silent.since > 1_500_000_000, "{silent:?}");
                assert_eq!(told.findings[0].code, "nodes-silent", "the gravest first");
                Ok(())
            }
            _ => Err(format!("{told:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_cluster_that_lets_everybody_in_says_so() {
    let control_plane = Setup::new()
        .with_environment("QUILT_MESH_INSECURE", "1")
        .start();
    let api = Api::of(&control_plane);
    let told = findings(&api).await;
    assert!(
        codes(&told).contains(&"cluster-open".to_owned()),
        "{told:?}"
    );
}
