//! What all nodes have in common, told with each sync, and what a runtime says that it can do.

use mesh_proto::mesh::{
    GetCapabilitiesRequest, ListPeersRequest, NodeSettings, Peer, SyncPeersRequest,
};

use mesh_testbed::Signal;

use crate::host::{ADDRESS, Daemon, Host};

/// Syncs one peer with these settings: the reason if that is refused.
async fn sync(
    daemon: &Daemon,
    generation: u64,
    node_settings: Option<NodeSettings>,
) -> Result<(), String> {
    let peer = Peer {
        subnet: "10.42.2.0/24".to_owned(),
        host_address: "192.0.2.2".to_owned(),
        mtu: 1400,
        ..Peer::default()
    };
    let request = SyncPeersRequest {
        generation,
        host_address: ADDRESS.to_owned(),
        peers: vec![peer],
        node_settings,
    };
    let answer = daemon.dataplane().await.sync_peers(request).await;
    let answer = answer.unwrap().into_inner();
    assert!(answer.rejected.is_empty(), "{:?}", answer.rejected);
    answer.success.then_some(()).ok_or(answer.error)
}

fn settings(vxlan_port: u32, vni: u32) -> Option<NodeSettings> {
    Some(NodeSettings { vxlan_port, vni })
}

async fn told(daemon: &Daemon) -> (u32, u32) {
    let status = daemon.status().await;
    (status.vxlan_port, status.vni)
}

fn overlay_is(host: &Host, vxlan_port: u32, vni: u32) {
    let overlay = host.ip("-details link show vxlan100");
    for expected in [format!("vxlan id {vni} "), format!("dstport {vxlan_port} ")] {
        assert!(overlay.contains(&expected), "{expected}: {overlay}");
    }
    assert_eq!(host.own_routes().len(), 1);
    let forwarding = host.bridge("fdb show dev vxlan100");
    assert!(forwarding.contains("dst 192.0.2.2"), "{forwarding}");
}

#[tokio::test]
async fn other_settings_make_the_overlay_device_anew_and_outlive_a_restart() {
    let host = Host::new("settings").await;
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    sync(&daemon, 1, settings(4789, 100)).await.unwrap();
    overlay_is(&host, 4789, 100);
    sync(&daemon, 2, settings(8472, 16_777_215)).await.unwrap();
    overlay_is(&host, 8472, 16_777_215);
    assert_eq!(told(&daemon).await, (8472, 16_777_215));
    daemon.end(Signal::SIGTERM).await;
    let before = host.state();
    let daemon = host.start().await;
    assert_eq!(told(&daemon).await, (8472, 16_777_215));
    assert_eq!(host.state(), before, "nothing is touched");
    let peers = daemon
        .dataplane()
        .await
        .list_peers(ListPeersRequest {})
        .await;
    let peers = peers.unwrap().into_inner().peers;
    assert_eq!(peers[0].peer.as_ref().unwrap().mtu, 1400);
    // An agent of before.
    sync(&daemon, 3, None).await.unwrap();
    overlay_is(&host, 4789, 100);
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_by_name_and_change_nothing() {
    let host = Host::new("no-settings").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    sync(&daemon, 1, None).await.unwrap();
    let before = host.state();
    for (port, vni, value) in [
        (0, 100, "vxlan_port 0"),
        (65_536, 100, "vxlan_port 65536"),
        (4789, 0, "vni 0"),
        (4789, 1 << 24, "vni 16777216"),
    ] {
        let error = sync(&daemon, 2, settings(port, vni)).await.unwrap_err();
        assert!(error.contains(value), "{error}");
    }
    assert_eq!(host.state(), before);
    assert_eq!(told(&daemon).await, (4789, 100));
}

#[tokio::test]
async fn what_was_made_with_other_settings_is_removed_by_a_cleanup() {
    let host = Host::new("settings-gone").await;
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    sync(&daemon, 1, settings(8472, 7)).await.unwrap();
    daemon.end(Signal::SIGTERM).await;
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success(), "{text}");
    assert_eq!(host.ip("link show type vxlan"), "");
}

#[tokio::test]
async fn a_runtime_says_what_it_can_do() {
    let host = Host::new("capable").await;
    let daemon = host.start().await;
    let answer = daemon
        .dataplane()
        .await
        .get_capabilities(GetCapabilitiesRequest {})
        .await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.capabilities, ["vxlan-port", "vni", "peer-mtu"]);
    assert_eq!(answer.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.layout_version, mesh_layout::LAYOUT_VERSION);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(answer.kernel_release, release.trim());
}
