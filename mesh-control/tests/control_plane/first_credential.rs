//! The first credential of a cluster whose nodes have none: whom it shuts out is said before.

use crate::answer::{Api, keyed};
use crate::joining::{Host, tell, told};
use crate::process::Setup;

fn said(setup: &Setup, words: &[&str]) -> String {
    let output = tell(setup, words);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn the_first_credential_is_refused_while_it_would_shut_nodes_out_and_says_what_goes_on() {
    let setup = Setup::new();
    let control = setup.start();
    let plain = Api::of(&control);
    let mut nodes = Vec::new();
    for n in 1..=6_u8 {
        let body = keyed(
            &format!("k{n}"),
            &format!("node{n}"),
            &format!("192.0.2.{n}"),
        );
        nodes.push(plain.register(body).await.admitted().0);
    }
    // One that is down is not shut out of anything.
    plain.deregister(&nodes[5]).await;
    for words in [&["operator", "create", "ada"][..], &["token", "create"]] {
        let error = told(&setup, words).unwrap_err();
        for part in [
            "5 nodes are up",
            "node1, node2, node3, node4, node5",
            "quilt-mesh-control secure",
            "--force",
        ] {
            assert!(error.contains(part), "{words:?}: {error}");
        }
        assert!(!error.contains("node6"), "{error}");
    }
    for node in &nodes[..5] {
        assert_eq!(plain.heartbeat(node).await.status, 200);
    }
    // The gentle way.
    let moving = said(&setup, &["secure"]);
    assert!(
        moving.contains("from everywhere") && moving.contains("node1"),
        "{moving}"
    );
    let made = said(&setup, &["operator", "create", "ada"]);
    assert!(
        made.contains("goes on") && made.contains("secure --finish: node1"),
        "{made}"
    );
    for node in &nodes[..5] {
        assert_eq!(plain.heartbeat(node).await.status, 200);
    }
    let error = told(&setup, &["secure", "--finish"]).unwrap_err();
    assert!(
        error.contains("5 nodes are up") && error.contains("--force"),
        "{error}"
    );
    let shut_out = said(&setup, &["secure", "--finish", "--force"]);
    assert!(
        shut_out.contains("shut out") && shut_out.contains("node5"),
        "{shut_out}"
    );
    assert_eq!(plain.heartbeat(&nodes[0]).await.status, 401);
}

#[tokio::test]
async fn a_token_that_was_made_counts_from_then_on_and_not_only_when_it_is_used() {
    let setup = Setup::new();
    let control = setup.start();
    let plain = Api::of(&control);
    let (node, _) = plain
        .register(keyed("k", "alpha", "192.0.2.1"))
        .await
        .admitted();
    let output = tell(&setup, &["token", "create", "--force"]);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains("Shut out until they join") && said.contains("alpha"),
        "{said}"
    );
    assert_eq!(plain.heartbeat(&node).await.status, 401);
    // The node that it was comes in by the token.
    let made = text(&output.stdout).trim().parse().unwrap();
    let mut host = Host::new();
    host.try_join(&control, &made, Some("k")).await.unwrap();
    assert_eq!(host.node_id(), node);
    // Revoked, or used up, it has still been made.
    told(&setup, &["token", "revoke", &made.id]).unwrap();
    drop(control);
    let control = setup.start();
    let plain = Api::of(&control);
    let answer = plain.register(keyed("k2", "beta", "192.0.2.2")).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    // And nothing more is said of it.
    let output = tell(&setup, &["token", "create"]);
    assert_eq!(text(&output.stderr), "");
}

#[tokio::test]
async fn the_first_credential_of_an_empty_cluster_says_that_this_host_needs_one_too() {
    let setup = Setup::new();
    let _control = setup.start();
    let first = said(&setup, &["token", "create"]);
    assert!(first.contains("processes of this host"), "{first}");
}
