//! Debian's own plugins after ours that are about the container's interface.

use std::net::Ipv4Addr;

use mesh_client::mesh::{Endpoint, Owner};
use mesh_testbed::{CniAttachment, DaemonOptions, Host, wait_until};
use serde_json::json;

use crate::{
    chained::{as_it_is, chain, once},
    engine::{address, assert_says, engine, failure, interfaces, port},
    mesh::{
        SOON, client, counters, endpoint, fast, five_of_five, ip, mesh_of, mesh_with, namespace,
        needed, run,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_holds_a_container_back_whose_endpoint_says_that_the_kernel_carries_it_with_tcx()
{
    bandwidth_holds_a_container_back("tcx").await;
}

/// There is room for one program alone at an interface, as before Linux 6.6.
#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_holds_a_container_back_whose_endpoint_says_that_the_kernel_carries_it_with_clsact()
 {
    bandwidth_holds_a_container_back("clsact").await;
}

async fn bandwidth_holds_a_container_back(mode: &str) {
    let runtime = DaemonOptions::new().args(["--attach", mode]);
    let testbed = mesh_with(2, &runtime).await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = engine(first);
    // Bits a second, and bits.
    let (rate, burst) = (100_000_000, 1_000_000);
    let list = chain(
        first,
        json!({"type": "bandwidth", "ingressRate": rate, "ingressBurst": burst,
            "egressRate": rate, "egressBurst": burst}),
    );
    let before = once(&engine, first, &list, as_it_is).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let result = engine.add(&list, &attachment).await.unwrap();
    let left = wait_left_to_the_kernel(first, address(&result, 0)).await;
    assert!(left.kernel_path.contains("tc"), "{left:?}");
    // What the container gets is shaped at its port, what it sends at a device of the plugin's.
    let names = interfaces(&result);
    let device = names.into_iter().find(|name| name.starts_with("bwp"));
    let devices = [port(&result), device.unwrap()];
    let passed_before = devices.map(|device| passed(first, device));
    let far = needed(second.attach_container().await);
    five_of_five(far.netns(), address(&result, 0)).await;
    five_of_five(&web, far.address()).await;
    for (device, before) in devices.into_iter().zip(passed_before) {
        let now = passed(first, device);
        // Five requests and five replies, whatever else came.
        assert!(now - before >= 10, "{device}: {before} to {now}");
    }
    engine.check(&list, &attachment).await.unwrap();

    // A container beside it keeps the fast path.
    let beside = needed(first.attach_container().await);
    let counted = counters(first).await;
    five_of_five(beside.netns(), far.address()).await;
    assert!(fast(&counted, &counters(first).await).0 >= 5);
    let its = endpoint(first, beside.address()).await.unwrap();
    assert_eq!(its.kernel_path, "");
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);
    let owner = Owner {
        engine: "testbed".to_owned(),
        network: "quilt".to_owned(),
        container: beside.name().to_owned(),
        interface: "eth0".to_owned(),
    };
    client(first).await.detach(owner).await.unwrap();

    engine.del(&list, &attachment).await.unwrap();
    before.wait_again(first).await;
}

async fn wait_left_to_the_kernel(host: &Host, address: Ipv4Addr) -> Endpoint {
    wait_until(
        "what the status says of the container",
        SOON,
        async || match endpoint(host, address).await {
            Some(endpoint) if !endpoint.kernel_path.is_empty() => Ok(endpoint),
            other => Err(format!("{other:?}")),
        },
    )
    .await
    .unwrap()
}

/// Packets that the first queueing discipline of a device has sent.
fn passed(host: &Host, device: &str) -> u32 {
    let words = format!("-statistics qdisc show dev {device} root");
    let shown = run(host.netns(), "tc", &words);
    let (_, sent) = shown.split_once(" bytes ").unwrap();
    sent.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tuning_sets_in_a_container_stays_and_the_container_keeps_the_fast_path() {
    let testbed = mesh_of(2).await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = engine(first);
    let tuning = json!({"type": "tuning", "sysctl": {"net.ipv4.tcp_syncookies": "0"}, "mtu": 1400});
    let list = chain(first, tuning);
    let before = once(&engine, first, &list, as_it_is).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new(web.name(), &web);
    let result = engine.add(&list, &attachment).await.unwrap();
    assert!(ip(&web, "link show eth0").contains("mtu 1400"));
    let set = web.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies"));
    assert_eq!(set.unwrap().unwrap().trim(), "0");
    engine.check(&list, &attachment).await.unwrap();
    let far = needed(second.attach_container().await);
    let counted = counters(first).await;
    five_of_five(&web, far.address()).await;
    assert!(fast(&counted, &counters(first).await).0 >= 5);
    let its = endpoint(first, address(&result, 0)).await.unwrap();
    assert_eq!(its.kernel_path, "");
    engine.del(&list, &attachment).await.unwrap();
    before.wait_again(first).await;
    // What the plugin remembered of it is the machine's, not the test's host's.
    let kept = std::fs::read_dir("/run/cni/tuning").into_iter().flatten();
    let mut kept = kept.flatten().map(|it| it.file_name());
    assert!(!kept.any(|it| it.to_string_lossy().contains(web.name())));
}

/// A MAC address is the runtime's to give: by the plugin's own capability.
#[tokio::test(flavor = "multi_thread")]
async fn a_hardware_address_that_tuning_sets_is_found_by_check_and_goes_with_its_container() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine(host);
    let list = chain(host, json!({"type": "tuning", "mac": "02:00:5e:00:53:44"}));
    let before = once(&engine, host, &list, as_it_is).await;
    let web = namespace("web").await;
    let attachment = CniAttachment::new(web.name(), &web);
    engine.add(&list, &attachment).await.unwrap();
    let failed = failure(engine.check(&list, &attachment).await);
    assert_eq!(failed.plugin, "quilt-cni");
    assert_says(&failed, 102, &["02:00:5e:00:53:44", "\"mac\""]);
    engine.del(&list, &attachment).await.unwrap();
    before.wait_again(host).await;
}
