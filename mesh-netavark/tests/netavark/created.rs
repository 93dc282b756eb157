//! `create` and `info`.

use mesh_testbed::{Daemon, Host, Netavark, Signal, Testbed};
use serde_json::{Value, json};

use crate::{
    engine::{assert_says, engine, network, said, wish},
    mesh::{SOON, leases, mesh_of, needed},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_network_gets_the_nodes_subnet_and_keeps_podman_from_giving_addresses() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let info = engine(host).info().await.unwrap();
    assert_eq!(info["api_version"], "1.0.0");
    let made = network(host, "mesh").await;
    let subnet = json!([{ "subnet": "10.42.1.0/24", "gateway": "10.42.1.1" }]);
    assert_eq!(made["subnets"], subnet);
    assert_eq!(made["dns_enabled"], false);
    // By "host-local", and by none, Podman gives addresses itself.
    let ipam = made["ipam_options"]["driver"].as_str().unwrap();
    assert!(!["", "host-local"].contains(&ipam), "{made}");
    // What is not ours to know stays.
    let mut more = wish(host, "mesh");
    more["labels"] = json!({ "team": "shop" });
    more["subnets"] = subnet;
    let made = engine(host).create(&more).await.unwrap();
    assert_eq!(made["created"], more["created"]);
    // By the other label a prune can spare it.
    let labels = json!({ "team": "shop", "quilt-mesh": "yes" });
    assert_eq!(made["labels"], labels);
    assert!(leases(host).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_network_of_the_mesh_cannot_be_is_refused_by_name() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let bad: [(&str, Value, &[&str]); 9] = [
        ("internal", json!(true), &["--internal"]),
        ("ipv6_enabled", json!(true), &["--ipv6"]),
        ("name", json!("a b"), &["a b", "network"]),
        ("name", json!("n".repeat(64)), &["at most 63"]),
        (
            "subnets",
            json!([{ "subnet": "192.0.2.0/24" }]),
            &["192.0.2.0/24", "10.42.1.0/24"],
        ),
        (
            "subnets",
            json!([{ "subnet": "10.42.1.0/24", "gateway": "10.42.1.2" }]),
            &["10.42.1.2"],
        ),
        ("ipam_options", json!({ "driver": "dhcp" }), &["dhcp"]),
        ("network_interface", json!("br0"), &["br0"]),
        ("subnets", json!("all"), &["subnets"]),
    ];
    for (field, value, words) in bad {
        let mut wish = wish(host, "mesh");
        wish[field] = value;
        assert_says(engine(host).create(&wish).await, words);
    }
    for (option, value) in [
        ("isolate", "true"),
        ("parent", "eth0"),
        ("mtu", "10"),
        ("no_default_route", "maybe"),
    ] {
        let mut wish = wish(host, "mesh");
        wish["options"][option] = value.into();
        assert_says(engine(host).create(&wish).await, &[option]);
    }
    // However long it is.
    let long = "x".repeat(5000);
    for (field, value, word) in [
        ("internal", json!(long), "internal"),
        ("network_interface", json!(long), "--interface-name"),
        ("options", json!({ "socket": long }), "absolute"),
        ("options", json!({ "socket": format!("/{long}") }), "107"),
        ("options", json!({ "mtu": long }), "mtu"),
    ] {
        let mut wish = wish(host, "mesh");
        wish[field] = value;
        let said = said(engine(host).create(&wish).await);
        assert!(said.contains(word) && said.len() < 500, "{field}: {said}");
    }
    let relative = Netavark::wish("mesh", json!({ "socket": "runtime.sock" }));
    let refused = engine(host).create(&relative).await;
    assert_says(refused, &["runtime.sock", "absolute"]);
}

/// A host whose runtime runs, and whose agent never did.
async fn without_agent() -> Testbed {
    let testbed = needed(Testbed::builder().hosts(1).build().await);
    let host: &Host = &testbed.hosts()[0];
    needed(host.start_runtime(&Default::default()).await);
    testbed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_subnet_or_a_runtime_makes_no_network_and_says_what_is_missing() {
    let testbed = without_agent().await;
    let host = &testbed.hosts()[0];
    let refused = engine(host).create(&wish(host, "mesh")).await;
    assert_says(refused, &["no subnet yet", "joined"]);
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    let refused = engine(host).create(&wish(host, "mesh")).await;
    assert_says(refused, &["quilt-runtime", "runtime.sock"]);
}
