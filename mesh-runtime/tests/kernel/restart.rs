//! The data plane outlives the daemon, and the next daemon takes it over.

use mesh_testbed::Signal;

use crate::host::Host;

/// Everything the daemon made, with the indexes of the devices: a device that was made anew
/// has another one.
fn data_plane(host: &Host) -> String {
    [
        host.ip("-oneline link show quilt0"),
        host.ip("-oneline -details link show vxlan100"),
        host.ip("address show quilt0"),
        host.ip("route show"),
        host.ip("neighbour show dev vxlan100"),
        host.bridge("fdb show dev vxlan100"),
    ]
    .concat()
}

async fn survives(signal: Signal) {
    let host = Host::new("restart").await;
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon
        .sync(
            3,
            &[("10.42.2.0/24", "192.0.2.2"), ("10.42.3.0/24", "192.0.2.3")],
        )
        .await;
    daemon.inject("10.42.9.0/24", "vxlan100").await.unwrap();
    let before = data_plane(&host);
    let status = daemon.end(signal).await;
    assert_eq!(status.success(), signal == Signal::SIGTERM, "{status}");
    assert_eq!(data_plane(&host), before, "without a daemon");

    let daemon = host.start().await;
    let status = daemon.status().await;
    assert_eq!(data_plane(&host), before, "with the next daemon");
    assert_eq!(status.subnet, "10.42.1.0/24");
    assert_eq!(status.host_address, "192.0.2.1");
    assert_eq!((status.peers, status.routes), (2, 3));
    assert_eq!(status.problems(), [""; 0]);

    // It takes care of what it found, before anybody has called it.
    host.ip("route flush proto 81");
    host.ip("link del vxlan100");
    host.eventually("the repair", |host| host.own_routes().len() == 3)
        .await;
    let forwarding = host.bridge("fdb show dev vxlan100");
    assert!(
        forwarding.contains("02:51:0a:2a:03:00 dst 192.0.2.3"),
        "{forwarding}"
    );

    // And the agent's next sync is the whole truth again.
    daemon.configure("10.42.1.0/24").await.unwrap();
    let stale = daemon.sync(2, &[]).await;
    assert!(stale.error.contains("below 3"), "{}", stale.error);
    let answer = daemon.sync(4, &[("10.42.3.0/24", "192.0.2.3")]).await;
    assert!(answer.success, "{}", answer.error);
    assert_eq!((answer.unchanged, answer.removed), (1, 1));
}

#[tokio::test]
async fn a_daemon_that_is_stopped_leaves_the_data_plane_and_the_next_takes_it_over() {
    survives(Signal::SIGTERM).await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_leaves_the_data_plane_and_the_next_takes_it_over() {
    survives(Signal::SIGKILL).await;
}

#[tokio::test]
async fn cleaning_up_leaves_nothing_of_ours() {
    let host = Host::new("cleanup").await;
    let before = [host.ip("link show"), host.ip("route show table all")].concat();
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    daemon.end(Signal::SIGTERM).await;
    assert!(host.state_dir().exists());
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success(), "{text}");
    assert!(!host.state_dir().exists(), "{text}");
    assert_eq!(
        [host.ip("link show"), host.ip("route show table all")].concat(),
        before
    );
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success());
    assert!(text.contains("nothing of Quilt Mesh"), "{text}");
}

#[tokio::test]
async fn cleaning_up_leaves_a_bridge_with_containers_and_says_so() {
    let host = Host::new("ports").await;
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.end(Signal::SIGTERM).await;
    host.ip("link add c1 type veth peer name c1-in");
    host.ip("link set c1 master quilt0");
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success(), "{text}");
    assert!(text.contains("kept: quilt0 has ports (c1)"), "{text}");
    assert!(host.ip("link show").contains("quilt0"));
    assert!(!host.ip("link show").contains("vxlan100"));
}

#[tokio::test]
async fn a_bridge_that_somebody_else_made_is_used_and_never_deleted() {
    let host = Host::new("borrowed").await;
    host.ip("link add quilt0 address 02:00:00:00:00:09 type bridge");
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let bridge = host.ip("address show quilt0");
    assert!(
        bridge.contains("10.42.1.1/24") && bridge.contains("02:00:00:00:00:09"),
        "{bridge}"
    );
    daemon.end(Signal::SIGTERM).await;
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success());
    assert!(text.contains("kept: quilt0"), "{text}");
    assert!(host.ip("link show").contains("quilt0"));
}
