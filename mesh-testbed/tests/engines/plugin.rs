//! Containers of a CNI plugin, without an engine.

use ipnet::Ipv4Net;
use mesh_testbed::{BRIDGE, CONTAINER_MTU, Cni, CniAttachment, Host, NetNs, cni_plugins};
use serde_json::{Value, json};

use crate::mesh::{End, bridge, mesh_of_two, needed, talk, wait_endpoint, wait_no_endpoint};

fn network(host: &Host, version: &str) -> Value {
    let bridge = json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "mtu": CONTAINER_MTU,
        "ipam": {
            "type": "host-local",
            "dataDir": host.dir().join("ipam"),
            "ranges": [[{ "subnet": "10.42.1.0/24", "gateway": "10.42.1.1" }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    json!({"cniVersion": version, "name": "quilt", "plugins": [bridge]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_a_cni_plugin_gets_the_fast_path_without_a_call() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = bridge(first).await;
    let web = NetNs::new("web").await.unwrap();
    let engine = Cni::on(first, [needed(cni_plugins())]);
    let network = network(first, "0.4.0");
    let attachment = CniAttachment::new("web", &web);
    let result = engine.add(&network, &attachment).await.unwrap();
    let address: Ipv4Net = result["ips"][0]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let interfaces = result["interfaces"].as_array().unwrap();
    let inside = interfaces.iter().find(|it| it["name"] == "eth0").unwrap();
    wait_endpoint(first, address.addr(), inside["mac"].as_str()).await;
    let db = second.add_container().await.unwrap();
    wait_endpoint(second, db.address(), None).await;
    let web_end = End {
        host: first,
        inside: web.entrance(),
        address: address.addr(),
    };
    let db_end = End {
        host: second,
        inside: db.netns().entrance(),
        address: db.address(),
    };
    talk(&web_end, &db_end).await;
    talk(&db_end, &web_end).await;
    engine.check(&network, &attachment).await.unwrap();

    engine.del(&network, &attachment).await.unwrap();
    wait_no_endpoint(first, address.addr()).await;
    assert_eq!(bridge(first).await, before);
}
