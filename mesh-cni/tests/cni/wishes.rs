//! Addresses and names that an engine asks for.

use mesh_testbed::{Cni, CniAttachment, Host};
use serde_json::{Value, json};

use crate::{
    engine::{address, alone, assert_says, engine, failure},
    mesh::{five_of_five, ip, leases, links, mesh_of, namespace, only_lease},
};

/// Attaches a container with a wish, sees that it has that address, and detaches it.
async fn granted(
    engine: &Cni,
    host: &Host,
    wished: &str,
    wish: impl Fn(CniAttachment) -> CniAttachment,
) -> Value {
    let web = namespace("web").await;
    let attachment = wish(CniAttachment::new("web", &web));
    let result = engine.add(&alone(host), &attachment).await.unwrap();
    assert_eq!(address(&result, 0).to_string(), wished);
    assert_eq!(only_lease(host).await.address, wished);
    assert!(ip(&web, "address show eth0").contains(wished));
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    engine.check(&alone(host), &attachment).await.unwrap();
    engine.del(&alone(host), &attachment).await.unwrap();
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_asked_for_by_capability_by_argument_and_by_the_lists_own_arguments() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    granted(&engine, host, "10.42.1.70", |it| {
        it.capability("ips", json!(["10.42.1.70"]))
    })
    .await;
    granted(&engine, host, "10.42.1.71", |it| {
        it.capability("ips", json!(["10.42.1.71/24"]))
    })
    .await;
    granted(&engine, host, "10.42.1.72", |it| {
        it.arg("IgnoreUnknown", "1").arg("IP", "10.42.1.72")
    })
    .await;
    granted(&engine, host, "10.42.1.73", |it| {
        it.config_args(json!({"cni": {"ips": ["10.42.1.73"]}}))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hardware_address_and_names_are_what_the_engine_says() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let web = namespace("web").await;
    let mac = "02:00:5e:00:53:01";
    let attachment = CniAttachment::new("web", &web)
        .capability("mac", json!(mac))
        .capability("aliases", json!({"quilt": ["web", "web.shop"]}));
    let result = engine.add(&alone(host), &attachment).await.unwrap();
    assert_eq!(result["interfaces"][2]["mac"], mac);
    assert!(ip(&web, "link show eth0").contains(mac));
    assert_eq!(only_lease(host).await.names, ["web", "web.shop"]);
    five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
    engine.check(&alone(host), &attachment).await.unwrap();
    engine.del(&alone(host), &attachment).await.unwrap();

    // As engines other than Podman write them.
    let attachment = CniAttachment::new("web", &web).capability("aliases", json!(["shop"]));
    engine.add(&alone(host), &attachment).await.unwrap();
    assert_eq!(only_lease(host).await.names, ["shop"]);
    engine.del(&alone(host), &attachment).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_given_is_refused_with_the_rule_and_leaves_nothing() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let holder = namespace("holder").await;
    let holder_is = CniAttachment::new("holder", &holder).arg("IP", "10.42.1.80");
    engine.add(&alone(host), &holder_is).await.unwrap();
    let web = namespace("web").await;
    for (wish, words) in [
        ("10.42.1.80", "podman/quilt/holder/eth0"),
        ("10.42.2.7", "outside"),
        ("10.42.1.1", "gateway"),
    ] {
        let attachment = CniAttachment::new("web", &web).arg("IP", wish);
        let failed = failure(engine.add(&alone(host), &attachment).await);
        assert_says(&failed, 100, &[wish, words]);
        assert_eq!(links(&web), ["lo"]);
    }
    for wish in ["web", "10.42.1.80/x", "fd00::1"] {
        let attachment = CniAttachment::new("web", &web).arg("IP", wish);
        let failed = failure(engine.add(&alone(host), &attachment).await);
        assert_says(&failed, 7, &[wish]);
        let attachment = CniAttachment::new("web", &web).capability("ips", json!([wish]));
        let failed = failure(engine.add(&alone(host), &attachment).await);
        assert_says(&failed, 7, &[wish]);
        // Its engine deletes what it could not add, with the same wish.
        engine.del(&alone(host), &attachment).await.unwrap();
    }
    let attachment = CniAttachment::new("web", &web).capability("mac", json!("01:00:5e:00:00:01"));
    let failed = failure(engine.add(&alone(host), &attachment).await);
    assert!(failed.msg.contains("01:00:5e:00:00:01"), "{failed}");
    let leases = leases(host).await;
    assert_eq!(leases.len(), 1, "{leases:?}");
    five_of_five(&holder, "10.42.1.1".parse().unwrap()).await;
    engine.del(&alone(host), &holder_is).await.unwrap();
}
