//! A host that joins again, with the key by which its node is known.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::joining::{Host, token, told};
use crate::process::Setup;

/// Another authority is in the place of the one that signed, and nobody waited for who was off.
fn rotate(setup: &Setup) {
    told(setup, &["ca", "rotate", "prepare"]).unwrap();
    for step in ["activate", "finish"] {
        told(setup, &["ca", "rotate", step, "--force"]).unwrap();
    }
}

#[tokio::test]
async fn a_host_that_was_off_during_a_rotation_is_its_node_again_by_any_token_and_its_key() {
    let setup = Setup::new();
    let control = setup.start();
    let mut host = Host::join(&control, &token(&setup, &[])).await;
    let other = Host::join(&control, &token(&setup, &[])).await;
    let subnet = host.register(&control, "alpha", "192.0.2.1").await;
    other.register(&control, "beta", "192.0.2.2").await;
    let node_id = host.node_id().to_owned();
    for _ in 0..2 {
        rotate(&setup);
        host.try_join(&control, &token(&setup, &[]), None)
            .await
            .unwrap();
        assert_eq!(host.node_id(), node_id);
        assert_eq!(host.register(&control, "alpha", "192.0.2.1").await, subnet);
        assert_eq!(host.beat(&control).await.status, 200);
    }
    // Whatever node key stands in the body, and before the control plane has forgotten what it read.
    let keyed = json!({"node_key": "key-of-alpha"});
    host.try_register(&control, "alpha", "192.0.2.1", keyed)
        .await;
    host.try_join(&control, &token(&setup, &[]), Some("another"))
        .await
        .unwrap();
    assert_eq!(host.node_id(), node_id);
    // A token that is for another node is for that.
    let made = token(&setup, &["--node", "beta"]);
    host.try_join(&control, &made, None).await.unwrap();
    assert_eq!(host.node_id(), other.node_id());
}

#[tokio::test]
async fn a_host_is_the_node_that_it_became_last_also_where_it_was_another_that_is_revoked() {
    let setup = Setup::new();
    let control = setup.start();
    let lost = Host::join(&control, &token(&setup, &[])).await;
    lost.register(&control, "alpha", "192.0.2.1").await;
    // Without its disk the host comes by a plain token, and is another node, which is a mistake.
    let mut host = Host::join(&control, &token(&setup, &[])).await;
    told(&setup, &["node", "revoke", host.node_id()]).unwrap();
    let made = token(&setup, &["--node", "alpha"]);
    host.try_join(&control, &made, None).await.unwrap();
    assert_eq!(host.node_id(), lost.node_id());
    rotate(&setup);
    let shown = told(&setup, &["node", "list"]).unwrap();
    assert!(shown.contains("of no authority"), "{shown}");
    host.try_join(&control, &token(&setup, &[]), None)
        .await
        .unwrap();
    assert_eq!(host.node_id(), lost.node_id());
    assert_eq!(host.beat(&control).await.status, 200);
    // That one revoked, the host is none of them.
    told(&setup, &["node", "revoke", host.node_id()]).unwrap();
    let made = token(&setup, &[]);
    let refused = host.try_join(&control, &made, None).await;
    assert_eq!(refused.unwrap_err().kind(), "unauthorized");
    // Who came with it is known by that.
    let until = Instant::now() + Duration::from_secs(60);
    let by = format!("token {}", made.id);
    let is_noted = |audit: &str| {
        let mut lines = audit.lines();
        lines.any(|line| line.contains(&by) && line.contains("refused"))
    };
    while !is_noted(&told(&setup, &["audit"]).unwrap()) {
        assert!(Instant::now() < until, "nothing of {by} in the audit");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_node_that_is_bound_to_a_name_is_so_when_it_joins_again() {
    let setup = Setup::new();
    let control = setup.start();
    let mut host = Host::join(&control, &token(&setup, &["--node", "alpha"])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    let node_id = host.node_id().to_owned();
    host.try_join(&control, &token(&setup, &[]), None)
        .await
        .unwrap();
    assert_eq!(host.node_id(), node_id);
    let answer = host
        .try_register(&control, "beta", "192.0.2.1", json!({}))
        .await;
    assert_eq!((answer.status, answer.kind().as_str()), (403, "forbidden"));
}

#[tokio::test]
async fn who_has_copied_the_request_of_a_host_takes_nothing_from_it() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    let made = token(&setup, &[]);
    let mut copied = host.renewal();
    copied["token"] = made.to_string().into();
    let request = crate::access::client::with_json("POST", "/api/join", "", &copied);
    let known_by = mesh_credentials::control_plane_check::KnownBy::Key(made.authority);
    let thief = Host::new();
    let answer = thief.ask(control.address(), known_by, &request).await;
    let answer = answer.unwrap();
    // A certificate, which is public, for a key that the thief does not have.
    assert!(answer.body.contains(host.node_id()), "{answer:?}");
    assert_eq!(host.beat(&control).await.status, 200);
}
