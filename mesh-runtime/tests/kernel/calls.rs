//! What the calls make of the kernel.

use crate::host::{ADDRESS, Host};

#[tokio::test]
async fn the_three_calls_alone_set_up_bridge_vxlan_device_and_route() {
    let host = Host::new("calls").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();

    let bridge = host.ip("-details address show quilt0");
    assert!(bridge.contains("inet 10.42.1.1/24"), "{bridge}");
    assert!(bridge.contains("02:52:0a:2a:01:00"), "{bridge}");
    assert!(
        bridge.contains("mtu 1450") && bridge.contains(",UP"),
        "{bridge}"
    );
    let overlay = host.ip("-details link show vxlan100");
    for expected in [
        "02:51:0a:2a:01:00",
        "mtu 1450",
        "vxlan id 100",
        "local 192.0.2.1",
        "dstport 4789",
        "nolearning",
        "noudpcsum",
        ",UP",
    ] {
        assert!(overlay.contains(expected), "{expected}: {overlay}");
    }
    assert!(!overlay.contains(" dev "), "{overlay}");

    daemon.inject("10.42.2.0/24", "vxlan100").await.unwrap();
    assert_eq!(
        host.own_routes(),
        ["10.42.2.0/24 via 10.42.2.0 dev vxlan100 src 10.42.1.1 onlink"]
    );
    let neighbours = host.ip("neighbour show dev vxlan100");
    assert!(
        neighbours.contains("10.42.2.0 lladdr 02:51:0a:2a:02:00 PERMANENT"),
        "{neighbours}"
    );

    daemon.remove("10.42.2.0/24").await.unwrap();
    assert!(host.own_routes().is_empty());
    assert_eq!(host.ip("neighbour show dev vxlan100"), "");
}

#[tokio::test]
async fn every_call_may_be_repeated() {
    let host = Host::new("repeat").await;
    let daemon = host.start().await;
    for _ in 0..3 {
        daemon.configure("10.42.1.0/24").await.unwrap();
        daemon.inject("10.42.2.0/24", "vxlan100").await.unwrap();
    }
    assert_eq!(host.own_routes().len(), 1);
    for _ in 0..2 {
        daemon.remove("10.42.2.0/24").await.unwrap();
    }
    daemon.remove("10.42.77.0/24").await.unwrap();
    assert!(host.own_routes().is_empty());
}

#[tokio::test]
async fn a_sync_makes_its_peers_the_whole_set() {
    let host = Host::new("sync").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let answer = daemon
        .sync(
            1,
            &[("10.42.2.0/24", "192.0.2.2"), ("10.42.3.0/24", "192.0.2.3")],
        )
        .await;
    assert!(answer.success, "{}", answer.error);
    assert_eq!((answer.added, answer.generation), (2, 1));
    let forwarding = host.bridge("fdb show dev vxlan100");
    assert!(
        forwarding.contains("02:51:0a:2a:02:00 dst 192.0.2.2 self permanent"),
        "{forwarding}"
    );

    // One leaves, one moves, one joins.
    let answer = daemon
        .sync(
            2,
            &[
                ("10.42.3.0/24", "192.0.2.33"),
                ("10.42.4.0/24", "192.0.2.4"),
            ],
        )
        .await;
    assert_eq!(
        (
            answer.added,
            answer.changed,
            answer.removed,
            answer.unchanged
        ),
        (1, 1, 1, 0)
    );
    assert_eq!(host.own_routes().len(), 2);
    let forwarding = host.bridge("fdb show dev vxlan100");
    assert!(forwarding.contains("02:51:0a:2a:03:00 dst 192.0.2.33"));
    assert!(!forwarding.contains("192.0.2.2 "), "{forwarding}");
    assert_eq!(forwarding.lines().count(), 2, "{forwarding}");
    let neighbours = host.ip("neighbour show dev vxlan100");
    assert_eq!(neighbours.lines().count(), 2, "{neighbours}");

    let answer = daemon
        .sync(
            3,
            &[
                ("10.42.3.0/24", "192.0.2.33"),
                ("10.42.4.0/24", "192.0.2.4"),
            ],
        )
        .await;
    assert_eq!((answer.unchanged, answer.added), (2, 0));
}

#[tokio::test]
async fn a_sync_leaves_injected_routes_alone_and_removing_one_takes_its_peer_along() {
    let host = Host::new("injected").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.inject("10.42.9.0/24", "vxlan100").await.unwrap();
    daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    daemon.sync(2, &[]).await;
    assert_eq!(host.own_routes().len(), 1);
    assert!(host.own_routes()[0].starts_with("10.42.9.0/24 "));

    daemon.sync(3, &[("10.42.2.0/24", "192.0.2.2")]).await;
    daemon.remove("10.42.2.0/24").await.unwrap();
    assert_eq!(host.bridge("fdb show dev vxlan100"), "");
    assert_eq!(host.own_routes().len(), 1);
    assert_eq!(daemon.status().await.peers, 0);
}

#[tokio::test]
async fn the_overlays_mtu_follows_the_underlays() {
    let host = Host::new("mtu").await;
    host.ip("link set eth0-far mtu 9000");
    host.ip("link set eth0 mtu 9000");
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    assert!(host.ip("link show vxlan100").contains("mtu 8950"));
    host.ip("link set eth0 mtu 1400");
    host.eventually("the smaller MTU", |host| {
        host.ip("link show vxlan100").contains("mtu 1350")
            && host.ip("link show quilt0").contains("mtu 1350")
    })
    .await;
    assert_eq!(daemon.status().await.overlay_mtu, 1350);
}

#[tokio::test]
async fn the_host_address_comes_from_option_agent_or_default_route_in_that_order() {
    let host = Host::new("address").await;
    host.ip("link add eth1 type veth peer name eth1-far");
    host.ip("address add 198.51.100.1/24 dev eth1");
    host.ip("link set eth1 up");
    host.ip("link set eth1-far up");
    host.ip("route add default via 198.51.100.254");
    let local = |address: &'static str| {
        move |host: &Host| {
            host.ip("-details link show vxlan100")
                .contains(&format!("local {address} "))
        }
    };
    {
        let daemon = host.start().await;
        daemon.configure("10.42.1.0/24").await.unwrap();
        assert!(local("198.51.100.1")(&host), "the default route's source");
        daemon.sync(1, &[]).await;
        assert!(local(ADDRESS)(&host), "what the agent says");
    }
    let daemon = host.start_with("off", &["--host-ip", "198.51.100.1"]).await;
    daemon.sync(1, &[]).await;
    assert!(local("198.51.100.1")(&host), "the option");
    assert_eq!(daemon.status().await.underlay_interface, "eth1");
}

#[tokio::test]
async fn a_host_with_two_addresses_and_no_default_route_asks_for_the_option() {
    let host = Host::new("ambiguous").await;
    host.ip("address add 198.51.100.1/24 dev eth0");
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let problems = daemon.status().await.problems();
    assert!(problems[0].contains("--host-ip"), "{problems:?}");
    let error = daemon.inject("10.42.2.0/24", "vxlan100").await.unwrap_err();
    assert!(
        error.contains("192.0.2.1") && error.contains("198.51.100.1"),
        "{error}"
    );
    // The agent's word settles it, and the injected route follows.
    daemon.sync(1, &[]).await;
    assert_eq!(host.own_routes().len(), 1);
    assert!(daemon.status().await.problems().is_empty());
}

#[tokio::test]
async fn the_host_forwards_packets_once_it_has_a_subnet() {
    let host = Host::new("forward").await;
    host.netns.sysctl("net/ipv4/ip_forward", "0").unwrap();
    let forwards = |host: &Host| {
        host.netns
            .run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap())
            .unwrap()
            == "1\n"
    };
    let daemon = host.start().await;
    assert!(!forwards(&host));
    daemon.configure("10.42.1.0/24").await.unwrap();
    assert!(forwards(&host));
    host.netns.sysctl("net/ipv4/ip_forward", "0").unwrap();
    host.eventually("forwarding", forwards).await;
}

#[tokio::test]
async fn a_peer_without_a_way_to_its_host_is_reported_until_there_is_one() {
    let host = Host::new("no-way").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let answer = daemon.sync(1, &[("10.42.2.0/24", "203.0.113.2")]).await;
    assert!(answer.success && answer.added == 1);
    let problems = daemon.status().await.problems();
    assert!(
        problems[0].contains("no route to 203.0.113.2"),
        "{problems:?}"
    );
    host.ip("route add 203.0.113.0/24 via 192.0.2.254");
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}
