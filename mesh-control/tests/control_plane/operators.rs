//! Operators list, release, reserve and unreserve subnets.

use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Api, keyed, node};
use crate::process::Setup;

async fn post(api: &Api, call: &str, body: Value) -> Answer {
    Answer::to(api.post(&format!("/api/subnets/{call}")).json(&body)).await
}

async fn succeeds(api: &Api, call: &str, body: Value) -> Value {
    let answer = post(api, call, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn list(api: &Api) -> Value {
    let answer = Answer::to(api.request(Method::GET, "/api/subnets")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn subnet_of_new(api: &Api, n: u8) -> String {
    let body = node(&format!("host-{n}"), &format!("192.0.2.{n}"));
    api.register(body).await.admitted().1
}

#[tokio::test]
async fn a_released_subnet_is_gone_with_its_node_and_is_leased_again_last() {
    let setup = Setup::new().with("--cluster-cidr", "10.42.0.0/22");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let mut nodes = Vec::new();
    for n in 1..=3_u8 {
        nodes.push(
            api.register(node(&format!("host-{n}"), &format!("192.0.2.{n}")))
                .await
                .admitted(),
        );
    }
    // 3 before 2, and both while nothing else is free.
    for n in [3, 2] {
        let (node_id, subnet) = &nodes[n - 1];
        assert_eq!(api.deregister(node_id).await.status, 200);
        let revision = api.list().await["revision"].as_i64().unwrap();
        let released = succeeds(&api, "release", json!({"subnet": subnet})).await;
        assert_eq!(
            released,
            json!({"subnet": subnet, "node_id": node_id, "hostname": format!("host-{n}")})
        );
        let path = format!("/api/nodes?since={revision}");
        let news = Answer::to(api.request(Method::GET, &path)).await.body;
        assert_eq!(news["removed"], json!([node_id]));
        api.heartbeat(node_id).await.problem(404, "unknown-node");
        // Repeated, it finds nothing left to do.
        let again = succeeds(&api, "release", json!({"subnet": subnet})).await;
        assert_eq!(again["node_id"], Value::Null);
    }
    assert_eq!(api.nodes().await.len(), 1);
    control_plane.kill();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let news = Answer::to(api.request(Method::GET, "/api/nodes?since=3"))
        .await
        .body;
    assert_eq!(
        news["removed"].as_array().unwrap().len(),
        2,
        "also after a restart"
    );
    assert_eq!(subnet_of_new(&api, 4).await, "10.42.3.0/24");
    assert_eq!(subnet_of_new(&api, 5).await, "10.42.2.0/24");
    api.register(node("host-6", "192.0.2.6"))
        .await
        .problem(503, "subnets-exhausted");
    assert_eq!(api.nodes().await.len(), 3);
}

#[tokio::test]
async fn a_subnet_of_a_live_node_is_not_released_and_the_answer_names_the_holder() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (node_id, subnet) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    let before = api.list().await;
    let answer = post(&api, "release", json!({"subnet": subnet})).await;
    let detail = answer.problem(409, "in-use");
    assert!(detail.contains("leased by the live node a"), "{detail}");
    assert_eq!(
        answer.body["holder"],
        json!({"node_id": node_id, "hostname": "a"})
    );
    assert_eq!(api.list().await, before);
    let never = json!({"subnet": "10.42.9.0/24"});
    post(&api, "release", never)
        .await
        .problem(404, "not-leased");
}

#[tokio::test]
async fn a_reserved_range_is_never_handed_out_and_an_unreserved_one_is_next() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(subnet_of_new(&api, 1).await, "10.42.1.0/24");
    let range = json!({"cidr": "10.42.2.0/23", "reason": "the old office"});
    succeeds(&api, "reserve", range.clone()).await;
    assert_eq!(subnet_of_new(&api, 2).await, "10.42.4.0/24");
    control_plane.kill();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    succeeds(&api, "reserve", range.clone()).await;
    assert_eq!(subnet_of_new(&api, 3).await, "10.42.5.0/24");
    let shown = list(&api).await;
    assert_eq!(
        (
            &shown["cluster"],
            &shown["node_prefix"],
            &shown["total"],
            &shown["free"],
            &shown["leased"],
            &shown["reserved"]
        ),
        (
            &json!("10.42.0.0/16"),
            &json!(24),
            &json!(255),
            &json!(250),
            &json!(3),
            &json!(2)
        )
    );
    assert_eq!(
        shown["subnets"][1],
        json!({"subnet": "10.42.2.0/23", "state": "reserved", "reason": "the old office"})
    );
    assert_eq!(
        (
            &shown["subnets"][2]["subnet"],
            &shown["subnets"][2]["state"],
            &shown["subnets"][2]["hostname"]
        ),
        (&json!("10.42.4.0/24"), &json!("leased"), &json!("host-2"))
    );
    assert_eq!(shown["subnets"][2]["status"], "up");
    succeeds(&api, "unreserve", json!({"cidr": "10.42.2.0/23"})).await;
    post(&api, "unreserve", json!({"cidr": "10.42.2.0/23"}))
        .await
        .problem(404, "not-reserved");
    // Passed over until now, and the lowest that were never used.
    assert_eq!(subnet_of_new(&api, 4).await, "10.42.2.0/24");
    assert_eq!(subnet_of_new(&api, 5).await, "10.42.3.0/24");
    assert_eq!(subnet_of_new(&api, 6).await, "10.42.6.0/24");
}

#[tokio::test]
async fn a_reservation_does_not_overlap_a_lease_or_another_reservation() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (node_id, subnet) = api.register(node("a", "192.0.2.1")).await.admitted();
    // Down or not: its subnet is its own.
    assert_eq!(api.deregister(&node_id).await.status, 200);
    let answer = post(&api, "reserve", json!({"cidr": "10.42.0.0/17"})).await;
    assert!(answer.problem(409, "in-use").contains("the node a"));
    assert_eq!(answer.body["holder"]["node_id"], node_id);
    succeeds(&api, "release", json!({"subnet": subnet})).await;
    succeeds(&api, "reserve", json!({"cidr": "10.42.0.0/17"})).await;
    let answer = post(&api, "reserve", json!({"cidr": "10.42.4.0/22"})).await;
    assert!(
        answer
            .problem(409, "in-use")
            .contains("10.42.0.0/17 is reserved already")
    );
    // What is released may be reserved, and then is not leased again.
    succeeds(&api, "reserve", json!({"cidr": "10.42.128.0/17"})).await;
    let answer = api.register(node("b", "192.0.2.2")).await;
    answer.problem(503, "subnets-exhausted");
    assert_eq!(answer.body["reserved"], 255);
    succeeds(&api, "unreserve", json!({"cidr": "10.42.0.0/17"})).await;
    assert_eq!(subnet_of_new(&api, 3).await, "10.42.2.0/24");
}

#[tokio::test]
async fn what_is_no_subnet_of_the_cluster_is_422_and_names_value_and_rule() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    for (call, body, words) in [
        ("release", json!({}), "subnet is missing"),
        ("release", json!([]), "must be a JSON object"),
        ("release", json!({"subnet": 7}), "no string"),
        ("release", json!({"subnet": "10.42.1.0"}), "not a CIDR"),
        (
            "release",
            json!({"subnet": "10.42.1.1/24"}),
            "host bits set",
        ),
        ("release", json!({"subnet": "fd00::/64"}), "IPv6"),
        (
            "release",
            json!({"subnet": "10.42.2.0/23"}),
            "which are /24",
        ),
        (
            "release",
            json!({"subnet": "10.43.1.0/24"}),
            "not inside the cluster CIDR 10.42.0.0/16",
        ),
        ("release", json!({"subnet": "10.42.0.0/24"}), "zero subnet"),
        ("reserve", json!({"cidr": "10.42.1.0/25"}), "which are /24"),
        ("reserve", json!({"cidr": "10.0.0.0/8"}), "not inside"),
        ("reserve", json!({"cidr": "10.42.0.0/24"}), "zero subnet"),
        (
            "reserve",
            json!({"cidr": "10.42.1.0/24", "reason": 1}),
            "reason must be a string",
        ),
        (
            "reserve",
            json!({"cidr": "10.42.1.0/24", "reason": "a\nb"}),
            "control character",
        ),
        ("unreserve", json!({"cidr": "x"}), "not a CIDR"),
    ] {
        let answer = post(&api, call, body).await;
        let detail = answer.problem(422, "invalid-fields");
        assert!(detail.contains(words), "{call}: {detail}");
    }
    assert_eq!(list(&api).await["subnets"], json!([]));
}

#[test]
fn reservations_bind_the_cluster_cidr_as_leases_do() {
    let mut setup = Setup::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    runtime.block_on(succeeds(&api, "reserve", json!({"cidr": "10.42.7.0/24"})));
    assert!(control_plane.stop().success());
    setup.set("--cluster-cidr", "10.43.0.0/16");
    let said = setup.start_refused();
    assert!(
        said.contains("reservations of 10.42.0.0/16 divided into /24"),
        "{said}"
    );
}
