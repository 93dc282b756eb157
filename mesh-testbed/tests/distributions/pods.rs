//! Sandboxes of containerd's CRI, as Kubernetes' node agent has them made.

use std::fs;

use mesh_testbed::{Engine, wait_reachable};
use serde_json::{Value, json};

use crate::{
    calls,
    containerd::{containerd, is_new},
    cri::Cri,
    leases::{container_links, holder, leases},
    mesh::{SOON, bridge, mesh_of_two, wait_endpoint, wait_no_endpoint},
    pod::{Pod, reach_each_other},
    seen::{PORT, Server},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn sandboxes_reach_each_other_by_the_fast_path_and_leave_nothing() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let before = [bridge(first).await, bridge(second).await];
    let engines = [containerd(first).await, containerd(second).await];
    calls::note(&engines[0]);
    let cris = [Cri::of(&engines[0]).await, Cri::of(&engines[1]).await];
    let web = Pod::run(first, &cris[0], "web").await;
    let db = Pod::run(second, &cris[1], "db").await;
    for pod in [&web, &db] {
        let holder = holder(pod.host, pod.address).await;
        assert_eq!(holder.as_deref(), Some("containerd quilt eth0"));
        wait_endpoint(pod.host, pod.address, None).await;
    }
    let lease = leases(first).await.remove(0);
    assert_eq!(lease.names, ["web"]);
    assert_eq!(lease.labels["K8S_POD_NAMESPACE"], "default");
    reach_each_other(&web, &db).await;

    for pod in [&web, &db] {
        pod.cri.stop(&pod.sandbox).await.unwrap();
        // By the plugin, not by whoever sweeps later.
        assert_eq!(leases(pod.host).await, []);
        assert_eq!(container_links(pod.host).await, [""; 0]);
        assert_eq!(pod.cri.shown(&pod.sandbox).await.address, None);
        pod.cri.remove(&pod.sandbox).await.unwrap();
        wait_no_endpoint(pod.host, pod.address).await;
        assert_eq!(pod.host.status().await.unwrap().problems(), [""; 0]);
    }
    // Once when it is stopped, and once without a namespace when it is removed.
    assert_eq!(
        calls::noted(&engines[0]),
        ["ADD NETNS", "DEL NETNS", "DEL "]
    );
    assert_eq!([bridge(first).await, bridge(second).await], before);
}

/// Has the stock plugins follow ours in an engine's network, and waits until the engine knows.
async fn chain_all(engine: &Engine, cri: &Cri<'_>) {
    let file = engine.seen_from_outside("/etc/cni/net.d/zz-quilt.conflist");
    let mut network: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let plugins = network["plugins"].as_array_mut().unwrap();
    plugins.extend([
        json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
        json!({"type": "tuning", "sysctl": {"net.ipv4.tcp_syncookies": "0"}}),
        json!({"type": "firewall", "backend": "iptables"}),
    ]);
    if is_new(engine) {
        network["cniVersion"] = "1.1.0".into();
    }
    fs::write(&file, network.to_string()).unwrap();
    let plugins = ["quilt-cni", "portmap", "bandwidth", "tuning", "firewall"];
    cri.wait_network(&plugins).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn stock_plugins_after_ours_publish_shape_tune_and_let_a_sandbox_through() {
    let testbed = mesh_of_two().await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = containerd(first).await;
    let cri = Cri::of(&engine).await;
    chain_all(&engine, &cri).await;
    let policy = |policy: &str| {
        let mut iptables = first.netns().command("iptables");
        let done = iptables.args(["--policy", "FORWARD", policy]).output();
        assert!(done.unwrap().status.success());
    };
    policy("DROP");
    let shaped = [
        ("kubernetes.io/ingress-bandwidth", "100M"),
        ("kubernetes.io/egress-bandwidth", "100M"),
    ];
    let web = cri.run("web", &[(8081, PORT)], &shaped).await.unwrap();
    let web = Pod::with(first, &cri, web).await;
    let inside = cri.entrance(&web.sandbox).await;

    let outside = testbed.control();
    let door = Server::on(&outside.netns().entrance(), 8000);
    let seen = door.sees(&inside, (outside.address(), 8000)).await;
    assert_eq!(seen, first.address(), "firewall let it through");
    // It lets nobody in.
    policy("ACCEPT");
    let server = Server::on(&inside, PORT);
    for client in [outside.netns().entrance(), second.netns().entrance()] {
        server.sees(&client, (first.address(), 8081)).await;
    }
    let cookies = inside.run(|| fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies"));
    assert_eq!(cookies.unwrap().unwrap().trim(), "0");
    let status = first.status().await.unwrap();
    let endpoints = status.endpoints.iter();
    let mut of_it = endpoints.filter(|it| it.address == web.address.to_string());
    let endpoint = of_it.next().unwrap();
    assert!(endpoint.kernel_path.contains("tc"), "{endpoint:?}");
    let far = second.add_container().await.unwrap();
    wait_reachable(far.netns(), web.address, SOON)
        .await
        .unwrap();
    assert_eq!(status.problems(), [""; 0]);

    cri.stop(&web.sandbox).await.unwrap();
    cri.remove(&web.sandbox).await.unwrap();
    assert_eq!(leases(first).await, []);
    assert_eq!(container_links(first).await, [""; 0]);
    let rules = first.netns().command("iptables-save").output().unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    for word in ["8081".to_owned(), web.address.to_string()] {
        assert!(!rules.contains(&word), "{word}: {rules}");
    }
}
