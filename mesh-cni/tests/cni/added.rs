//! What a container gets.

use ipnet::Ipv4Net;
use mesh_testbed::{CniAttachment, PingOptions, ping, transfer};
use serde_json::json;

use crate::{
    engine::{VERSIONS, address, alone, dirs, engine, interfaces, list, port, quilt},
    mesh::{
        SOON, counters, fast, five_of_five, ip, kernel, mesh_of, namespace, only_lease, owner_of,
    },
    remains::Remains,
    script,
};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_two_hosts_hear_of_each_other_and_their_first_packets_take_the_fast_path() {
    let testbed = mesh_of(2).await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [Remains::of(first).await, Remains::of(second).await];
    let (web, db) = (namespace("web").await, namespace("db").await);
    let (web_is, db_is) = (
        CniAttachment::new("web", &web),
        CniAttachment::new("db", &db),
    );
    let (here, there) = (engine(first), engine(second));
    let to = there.add(&alone(second), &db_is).await.unwrap();
    let from = here.add(&alone(first), &web_is).await.unwrap();
    let counted = [counters(first).await, counters(second).await];
    let options = PingOptions {
        count: 1,
        ..PingOptions::default()
    };
    let report = ping(&web, address(&to, 0), options).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    let now = [counters(first).await, counters(second).await];
    for (before, now) in counted.iter().zip(&now) {
        assert_eq!(fast(before, now), (1, 1));
    }
    assert_eq!(kernel(&counted[0], &now[0]), (0, 0));

    five_of_five(&db, address(&from, 0)).await;
    let copied = transfer(&web, &db, address(&to, 0), 2_000_000, SOON).await;
    assert!(copied.unwrap().is_intact());
    here.check(&alone(first), &web_is).await.unwrap();
    there.check(&alone(second), &db_is).await.unwrap();
    here.status(&alone(first)).await.unwrap();
    for host in testbed.hosts() {
        assert_eq!(host.status().await.unwrap().problems(), [""; 0]);
    }

    here.del(&alone(first), &web_is).await.unwrap();
    there.del(&alone(second), &db_is).await.unwrap();
    before[0].wait_again(first).await;
    before[1].wait_again(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_has_the_host_its_bridge_and_the_container_as_each_version_writes_it() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let before = Remains::of(host).await;
    for version in VERSIONS {
        let web = namespace("web").await;
        let attachment = CniAttachment::new("web", &web);
        let mut plugin = quilt(host, "podman");
        plugin["dns"] = json!({"nameservers": ["10.42.1.1"], "search": ["mesh"]});
        let list = list("quilt", version, [plugin]);
        let result = engine.add(&list, &attachment).await.unwrap();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(interfaces(&result), ["quilt0", port(&result), "eth0"]);
        assert_eq!(port(&result).len(), 14, "{result}");
        for outside in [0, 1] {
            let sandbox = &result["interfaces"][outside]["sandbox"];
            assert!(sandbox.as_str().is_none_or(str::is_empty), "{result}");
        }
        let inside = &result["interfaces"][2];
        assert_eq!(inside["sandbox"], json!(web.path()));
        assert_eq!(result["ips"].as_array().unwrap().len(), 1);
        let its = &result["ips"][0];
        assert_eq!(
            (&its["gateway"], &its["interface"]),
            (&json!("10.42.1.1"), &json!(2))
        );
        let family = (version < "1.0.0").then(|| json!("4"));
        assert_eq!(its.get("version"), family.as_ref(), "{version}");
        let mtu = (version >= "1.1.0").then(|| json!(1450));
        assert_eq!(inside.get("mtu"), mtu.as_ref(), "{version}");
        assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0");
        assert_eq!(result["dns"]["nameservers"], json!(["10.42.1.1"]));

        // What it says is what there is.
        let net: Ipv4Net = its["address"].as_str().unwrap().parse().unwrap();
        assert_eq!(net.prefix_len(), 24);
        let shown = ip(&web, "address show eth0");
        let mac = inside["mac"].as_str().unwrap();
        for words in [&*format!("inet {net} "), mac, "mtu 1450", "state UP"] {
            assert!(shown.contains(words), "{words} in {shown}");
        }
        let routes = ip(&web, "route show default");
        assert!(routes.contains("via 10.42.1.1 dev eth0"), "{routes}");
        let outside = ip(host.netns(), &format!("link show {}", port(&result)));
        assert!(outside.contains("master quilt0"), "{outside}");
        assert_eq!(owner_of(&only_lease(host).await), "podman/quilt/web/eth0");
        five_of_five(&web, "10.42.1.1".parse().unwrap()).await;
        if version >= "0.4.0" {
            engine.check(&list, &attachment).await.unwrap();
        }
        engine.del(&list, &attachment).await.unwrap();
        before.wait_again(host).await;
    }
    assert_eq!(engine.versions("quilt-cni").await.unwrap(), VERSIONS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_before_it_made_stays_in_front_of_what_it_made_itself() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let before = r#"test "$CNI_COMMAND" = ADD || exit 0
echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "lo9", "mac": "02:00:00:00:00:09", "sandbox": "/n"}],
"ips": [{"address": "192.0.2.200/24", "interface": 0}], "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.201"}],
"dns": {"nameservers": ["192.0.2.53"]}}'"#;
    let mut dirs = dirs();
    dirs.push(host.dir().join("scripts"));
    script::write(&dirs[2], "before", before);
    let engine = mesh_testbed::Cni::on(host, dirs);
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let plugins = [json!({"type": "before"}), quilt(host, "podman")];
    let list = list("quilt", "1.0.0", plugins);
    let result = engine.add(&list, &attachment).await.unwrap();
    assert_eq!(
        interfaces(&result),
        ["lo9", "quilt0", port(&result), "eth0"]
    );
    assert_eq!(result["ips"][0]["address"], "192.0.2.200/24");
    assert_eq!(result["ips"][0]["interface"], 0);
    assert_eq!(result["ips"][1]["interface"], 3);
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:09");
    assert_eq!(result["routes"][0]["dst"], "198.51.100.0/24");
    assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53");
    engine.check(&list, &attachment).await.unwrap();
    engine.del(&list, &attachment).await.unwrap();
}
