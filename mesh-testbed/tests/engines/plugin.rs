//! Containers of a CNI plugin, without an engine.

use std::{io::Write as _, process::Stdio};

use ipnet::Ipv4Net;
use mesh_testbed::{BRIDGE, CONTAINER_MTU, Host, NetNs, cni_plugins};

use crate::mesh::{End, bridge, mesh_of_two, needed, talk, wait_endpoint, wait_no_endpoint};

/// Runs a plugin as an engine does (the execution protocol of the CNI specification).
fn plugin(host: &Host, command: &str, container: &NetNs) -> serde_json::Value {
    let plugins = needed(cni_plugins());
    let mut bridge = host.netns().command(plugins.join("bridge"));
    let network = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "quilt",
        "type": "bridge",
        "bridge": BRIDGE,
        "mtu": CONTAINER_MTU,
        "ipam": {
            "type": "host-local",
            "dataDir": host.dir().join("cni"),
            "ranges": [[{ "subnet": "10.42.1.0/24", "gateway": "10.42.1.1" }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    let mut bridge = bridge
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "web")
        .env("CNI_NETNS", container.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", &plugins)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = bridge.stdin.take().unwrap();
    input.write_all(network.to_string().as_bytes()).unwrap();
    drop(input);
    let output = bridge.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_a_cni_plugin_gets_the_fast_path_without_a_call() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = bridge(first).await;
    let web = NetNs::new("web").await.unwrap();
    let result = plugin(first, "ADD", &web);
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

    plugin(first, "DEL", &web);
    wait_no_endpoint(first, address.addr()).await;
    assert_eq!(bridge(first).await, before);
}
