//! Whose an underlay address is, where nodes have credentials: hosts with addresses of their own, in a network namespace.

use std::net::Ipv4Addr;

use mesh_testbed::{Links, NetNs};
use serde_json::json;

use crate::access::client::Answer;
use crate::joining::{Host, token, told};
use crate::process::{ControlPlane, Setup};

const CONTROL: &str = "192.0.2.1";
const ALPHA: &str = "192.0.2.2";
const BETA: &str = "192.0.2.3";

/// In a namespace with these addresses.
async fn with_addresses<F, Fut>(test: F)
where
    F: FnOnce(Setup, ControlPlane) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    let namespace = NetNs::new("kept").await.unwrap();
    let links = Links::of(&namespace).unwrap();
    for address in [CONTROL, ALPHA, BETA] {
        let address = format!("{address}/32").parse().unwrap();
        links.add_address("lo", address).await.unwrap();
    }
    let tested = namespace.run_async(|| async {
        let setup = Setup::new()
            .with("--bind", "192.0.2.1:0")
            .with("--node-timeout", "1s");
        let control = setup.start();
        test(setup, control).await;
    });
    tested.await.unwrap();
}

async fn joins(setup: &Setup, control: &ControlPlane, from: &str) -> Host {
    let mut host = Host::new();
    host.from = Some(address(from));
    host.try_join(control, &token(setup, &[]), None)
        .await
        .unwrap();
    host
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

async fn registers(host: &Host, control: &ControlPlane, name: &str, host_ip: &str) -> Answer {
    host.try_register(control, name, host_ip, json!({})).await
}

/// Waits until a node that is not heard of any more is down.
async fn is_down(setup: &Setup, node_id: &str) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let row: (String,) = sqlx::query_as("SELECT status FROM nodes WHERE node_id = $1")
            .bind(node_id)
            .fetch_one(&mut setup.database().await)
            .await
            .unwrap();
        if row.0 == "down" {
            return;
        }
        assert!(std::time::Instant::now() < until, "{node_id} is up");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_address_of_a_node_that_is_silent_is_taken_over_only_from_there() {
    with_addresses(|setup, control| async move {
        let alpha = joins(&setup, &control, ALPHA).await;
        alpha.register(&control, "alpha", ALPHA).await;
        is_down(&setup, alpha.node_id()).await;
        // Another node says that it has this address; one that waits for nobody to beat.
        let thief = joins(&setup, &control, BETA).await;
        for name in ["alpha", "beta"] {
            let answer = registers(&thief, &control, name, ALPHA).await;
            assert_eq!(
                (answer.status, answer.kind().as_str()),
                (409, "address-kept")
            );
            for said in [alpha.node_id(), BETA, "node revoke", "token create --node"] {
                assert!(answer.body.contains(said), "{said}: {}", answer.body);
            }
        }
        // The node itself comes back from wherever it reaches the control plane.
        let mut alpha = alpha;
        alpha.from = Some(address(CONTROL));
        assert_eq!(
            alpha.register(&control, "alpha", ALPHA).await,
            "10.42.1.0/24"
        );
        is_down(&setup, alpha.node_id()).await;
        // And a host that is there is another node, with another subnet.
        let heir = joins(&setup, &control, ALPHA).await;
        assert_eq!(heir.register(&control, "heir", ALPHA).await, "10.42.2.0/24");
        // Which has the address from then on, wherever it comes from; the other one finds it in use.
        let mut heir = heir;
        heir.from = Some(address(BETA));
        heir.register(&control, "heir", ALPHA).await;
        assert_eq!(
            registers(&alpha, &control, "alpha", ALPHA).await.status,
            409
        );
        assert_eq!(
            alpha.register(&control, "alpha", CONTROL).await,
            "10.42.1.0/24"
        );
    })
    .await;
}

#[tokio::test]
async fn the_address_of_a_node_whose_agent_was_stopped_is_kept_until_it_leaves_or_is_revoked() {
    with_addresses(|setup, control| async move {
        for end in ["leave", "revoke"] {
            let alpha = joins(&setup, &control, ALPHA).await;
            alpha.register(&control, "alpha", ALPHA).await;
            let path = |verb| format!("/api/nodes/{}/{verb}", alpha.node_id());
            let answer = alpha.call(&control, &path("deregister"), &json!({})).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let other = joins(&setup, &control, BETA).await;
            let answer = registers(&other, &control, "beta", ALPHA).await;
            assert_eq!(answer.kind(), "address-kept", "{}", answer.body);
            match end {
                "leave" => {
                    let leave = json!({"node_key": "any"});
                    let answer = alpha.call(&control, &path("leave"), &leave).await;
                    assert_eq!(answer.status, 200, "{}", answer.body);
                }
                _ => {
                    told(&setup, &["node", "revoke", alpha.node_id()]).unwrap();
                }
            }
            other.register(&control, "beta", ALPHA).await;
            let answer = other
                .call(
                    &control,
                    &path("leave").replace(alpha.node_id(), other.node_id()),
                    &json!({"node_key": "any"}),
                )
                .await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_that_lost_its_disk_has_its_address_again_by_a_token_for_its_node() {
    with_addresses(|setup, control| async move {
        let alpha = joins(&setup, &control, BETA).await;
        let subnet = alpha.register(&control, "alpha", ALPHA).await;
        is_down(&setup, alpha.node_id()).await;
        // It reaches the control plane from another address, as through a proxy.
        let again = joins(&setup, &control, BETA).await;
        let answer = registers(&again, &control, "alpha", ALPHA).await;
        assert_eq!(answer.kind(), "address-kept", "{}", answer.body);
        let mut again = Host::new();
        again.from = Some(address(BETA));
        let made = token(&setup, &["--node", alpha.node_id()]);
        again.try_join(&control, &made, None).await.unwrap();
        assert_eq!(again.register(&control, "alpha", ALPHA).await, subnet);
    })
    .await;
}
