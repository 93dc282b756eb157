//! Debian testing's plugins after ours, all of them in one list of version 1.1.0.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use mesh_testbed::{Cni, CniAttachment, Daemon, Distribution, Host, NetNs, Signal, wait_until};
use serde_json::{Value, json};

use crate::{
    engine::{address, assert_says, failure, list, plugin, quilt},
    mesh::{
        SOON, endpoint, five_of_five, ip, leases, links, mesh_of, namespace, needed, only_lease,
        run,
    },
    remains::Remains,
};

const STOCK: [&str; 4] = ["portmap", "bandwidth", "tuning", "firewall"];

/// How long one connection may take.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Engines that speak 1.1.0 and find Debian testing's plugins beside ours.
fn engine_in(host: &Host, cache: &str) -> Cni {
    let stock = needed(Distribution::chosen()).cni_plugins();
    let dirs = [plugin().parent().unwrap().to_owned(), stock];
    Cni::inside(host.netns(), host.dir().join(cache), dirs)
}

/// All of them. Ports are published by this program.
fn chain(host: &Host, ports_by: &str) -> Value {
    let rate = json!(100_000_000);
    let burst = json!(1_000_000);
    let plugins = [
        quilt(host, "podman"),
        json!({"type": "portmap", "backend": ports_by, "snat": true,
            "capabilities": {"portMappings": true}}),
        json!({"type": "bandwidth", "ingressRate": rate, "ingressBurst": burst,
            "egressRate": rate, "egressBurst": burst}),
        json!({"type": "tuning", "sysctl": {"net.ipv4.tcp_syncookies": "0"}, "mtu": 1400}),
        json!({"type": "firewall", "backend": "iptables"}),
    ];
    list("quilt", "1.1.0", plugins)
}

fn published(netns: &NetNs) -> CniAttachment {
    let port = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
    CniAttachment::new(netns.name(), netns).capability("portMappings", json!([port]))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn all_at_once_do_their_part_and_leave_nothing_with_ports_by_iptables() {
    all_at_once("iptables").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn all_at_once_do_their_part_and_leave_nothing_with_ports_by_nftables() {
    all_at_once("nftables").await;
}

async fn all_at_once(ports_by: &str) {
    let testbed = mesh_of(2).await;
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engine = engine_in(first, "cni");
    for stock in STOCK {
        let versions = engine.versions(stock).await.unwrap();
        assert!(versions.iter().any(|it| it == "1.1.0"), "{stock}");
    }
    let list = chain(first, ports_by);
    engine.status(&list).await.unwrap();
    // What they make once and keep, such as chains of their own.
    let clean = Remains::of(first).await;
    let once = namespace("once").await;
    let attachment = published(&once);
    let result = engine.add(&list, &attachment).await.unwrap();
    engine.del(&list, &attachment).await.unwrap();
    let before = clean.wait_but_for_rules(first, address(&result, 0)).await;

    let web = namespace("web").await;
    let attachment = published(&web);
    let result = engine.add(&list, &attachment).await.unwrap();
    assert_eq!(result["cniVersion"], "1.1.0");
    engine.check(&list, &attachment).await.unwrap();
    let rules = run(first.netns(), "nft", "--stateless list ruleset");
    // It takes the other program where the one it is told is not there.
    let by_nftables = rules.contains("table ip cni_hostport");
    assert_eq!(by_nftables, ports_by == "nftables", "{rules}");
    let listener = listen(&web, 80);
    let door = SocketAddr::from((first.address(), 8080));
    let far = needed(second.attach_container().await);
    for from in [second.netns(), testbed.control().netns(), far.netns()] {
        wait_connected(from, door).await;
    }
    five_of_five(far.netns(), address(&result, 0)).await;
    assert!(ip(&web, "link show eth0").contains("mtu 1400"));
    let shaped = run(first.netns(), "tc", "qdisc show");
    assert_eq!(shaped.matches("qdisc tbf").count(), 2, "{shaped}");
    wait_until("what the status says of it", SOON, async || match endpoint(
        first,
        address(&result, 0),
    )
    .await
    {
        Some(endpoint) if endpoint.kernel_path.contains("tc") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    engine.status(&list).await.unwrap();
    engine.check(&list, &attachment).await.unwrap();
    engine.gc(&list, &[(web.name(), "eth0")]).await.unwrap();
    wait_connected(second.netns(), door).await;
    assert_eq!(first.status().await.unwrap().problems(), [""; 0]);

    engine.del(&list, &attachment).await.unwrap();
    connect(second.netns(), door).unwrap_err();
    before.wait_again(first).await;
    drop(listener);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn garbage_is_collected_through_the_whole_list() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine_in(host, "cni");
    let list = chain(host, "iptables");
    let (stale, lives, gone) = (
        namespace("stale").await,
        namespace("lives").await,
        namespace("gone").await,
    );
    let add = async |netns: &NetNs, engine: &Cni| {
        let attachment = CniAttachment::new(netns.name(), netns);
        engine.add(&list, &attachment).await.unwrap()
    };
    let stale_at = add(&stale, &engine).await;
    let lives_at = add(&lives, &engine).await;
    // By an engine that has lost all it knew. Others' plugins collect nothing of it (firewall 1.9.1 leaves its rules).
    add(&gone, &engine_in(host, "forgotten")).await;
    assert_eq!(leases(host).await.len(), 3);
    ip(&gone, "link del eth0");
    engine.gc(&list, &[(lives.name(), "eth0")]).await.unwrap();
    let left = only_lease(host).await;
    assert_eq!(left.address, address(&lives_at, 0).to_string());
    assert_eq!(links(&stale), ["lo"]);
    five_of_five(&lives, "10.42.1.1".parse().unwrap()).await;
    let rules = run(host.netns(), "iptables-save", "");
    let is_ruled = |result: &Value| rules.contains(&format!("{}/32", address(result, 0)));
    assert!(is_ruled(&lives_at) && !is_ruled(&stale_at), "{rules}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn the_status_of_the_list_is_ours_without_a_runtime() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let engine = engine_in(host, "cni");
    let list = chain(host, "iptables");
    engine.status(&list).await.unwrap();
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    let failed = failure(engine.status(&list).await);
    assert_eq!(failed.plugin, "quilt-cni");
    assert_says(&failed, 50, &["runtime"]);
    let web = namespace("web").await;
    let failed = failure(engine.add(&list, &published(&web)).await);
    assert_eq!(failed.plugin, "quilt-cni");
    assert_says(&failed, 11, &["runtime"]);
    assert_eq!(links(&web), ["lo"]);
}

/// Connects until somebody takes the connection.
async fn wait_connected(from: &NetNs, to: SocketAddr) {
    let what = format!("a connection from {} to {to}", from.name());
    wait_until(&what, SOON, async || connect(from, to))
        .await
        .unwrap();
}

fn connect(from: &NetNs, to: SocketAddr) -> io::Result<()> {
    let connected = from.run(|| TcpStream::connect_timeout(&to, ATTEMPT));
    connected.map_err(io::Error::other)?.map(drop)
}

fn listen(on: &NetNs, port: u16) -> TcpListener {
    let any = (Ipv4Addr::UNSPECIFIED, port);
    needed(on.run(|| TcpListener::bind(any))).unwrap()
}
