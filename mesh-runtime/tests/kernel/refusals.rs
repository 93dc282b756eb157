//! Bad input: a clear error, and nothing is changed.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use mesh_testbed::{NetNs, copy_program};

use crate::host::{ADDRESS, Host, run_to_end};

async fn subnets_are_refused(values: &[(&str, &str)]) {
    let host = Host::new("bad-subnet").await;
    let daemon = host.start().await;
    let before = host.state();
    for (value, rule) in values {
        let error = daemon.configure(value).await.unwrap_err();
        assert!(error.contains(rule), "{value}: {error}");
        assert!(
            value.is_empty() || error.contains(value),
            "{value}: {error}"
        );
    }
    assert_eq!(host.state(), before);
    daemon.configure("10.42.1.0/24").await.unwrap();
    let before = host.state();
    for (value, rule) in values {
        for error in [
            daemon.inject(value, "vxlan100").await.unwrap_err(),
            daemon.remove(value).await.unwrap_err(),
            daemon.configure(value).await.unwrap_err(),
        ] {
            assert!(error.contains(rule), "{value}: {error}");
        }
        let answer = daemon.sync(1, &[(value, "192.0.2.2")]).await;
        assert!(answer.success, "one bad peer does not keep out the others");
        assert_eq!(answer.rejected.len(), 1, "{value}");
        assert!(answer.rejected[0].reason.contains(rule), "{value}");
        assert_eq!(answer.rejected[0].peer.as_ref().unwrap().subnet, *value);
    }
    assert_eq!(host.state(), before);
}

#[tokio::test]
async fn a_cidr_that_is_not_one_is_refused() {
    subnets_are_refused(&[
        ("", "CIDR"),
        ("x", "CIDR"),
        ("10.42.2.0", "CIDR"),
        ("10.42.2.0/40", "CIDR"),
    ])
    .await;
}

#[tokio::test]
async fn host_bits_are_refused() {
    subnets_are_refused(&[("10.42.2.5/24", "host bits set: the network is 10.42.2.0/24")]).await;
}

#[tokio::test]
async fn another_prefix_than_24_is_refused() {
    subnets_are_refused(&[
        ("10.42.0.0/16", "/24"),
        ("10.42.2.0/25", "/24"),
        ("0.0.0.0/0", "/24"),
    ])
    .await;
}

#[tokio::test]
async fn a_subnet_outside_the_cluster_is_refused() {
    subnets_are_refused(&[
        ("192.168.7.0/24", "10.42.0.0/16"),
        ("10.43.1.0/24", "10.42.0.0/16"),
    ])
    .await;
}

#[tokio::test]
async fn the_zero_subnet_is_refused() {
    subnets_are_refused(&[("10.42.0.0/24", "zero subnet")]).await;
}

#[tokio::test]
async fn ipv6_is_refused() {
    subnets_are_refused(&[("fd00:42::/64", "IPv6"), ("::/0", "IPv6")]).await;
}

#[tokio::test]
async fn the_nodes_own_subnet_is_refused_as_a_destination() {
    let host = Host::new("own").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    for error in [
        daemon.inject("10.42.1.0/24", "vxlan100").await.unwrap_err(),
        daemon.remove("10.42.1.0/24").await.unwrap_err(),
    ] {
        assert!(error.contains("own subnet"), "{error}");
    }
    let answer = daemon.sync(1, &[("10.42.1.0/24", "192.0.2.2")]).await;
    assert!(answer.rejected[0].reason.contains("own subnet"));
    assert!(host.ip("route show 10.42.1.0/24").contains("dev quilt0"));
}

#[tokio::test]
async fn any_interface_but_the_overlays_is_refused() {
    let host = Host::new("via").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let before = host.state();
    for (via, rule) in [
        ("eth0", "not the overlay interface"),
        ("quilt0", "not the overlay interface"),
        ("nosuch0", "not the overlay interface"),
        ("../x", "is not a name"),
        ("vxlan1000000000x", "at most 15"),
        ("", "empty"),
    ] {
        let error = daemon.inject("10.42.2.0/24", via).await.unwrap_err();
        assert!(
            error.contains(rule) && error.contains(via),
            "{via}: {error}"
        );
    }
    assert_eq!(host.state(), before);
}

#[tokio::test]
async fn what_needs_the_subnet_says_which_call_comes_first() {
    let host = Host::new("order").await;
    let daemon = host.start().await;
    let before = host.state();
    let error = daemon.inject("10.42.2.0/24", "vxlan100").await.unwrap_err();
    assert!(error.contains("call ConfigureNodeSubnet first"), "{error}");
    let answer = daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    assert!(!answer.success);
    assert!(answer.error.contains("call ConfigureNodeSubnet first"));
    daemon.remove("10.42.2.0/24").await.unwrap();
    assert_eq!(host.state(), before);
}

#[tokio::test]
async fn peers_with_bad_or_doubled_addresses_are_rejected_and_the_others_taken() {
    let host = Host::new("peers").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let answer = daemon
        .sync(
            1,
            &[
                ("10.42.2.0/24", "192.0.2.2"),
                ("10.42.3.0/24", "host3"),
                ("10.42.4.0/24", "0.0.0.0"),
                ("10.42.5.0/24", "239.0.0.1"),
                ("10.42.6.0/24", ADDRESS),
                ("10.42.7.0/24", "192.0.2.2"),
                ("10.42.2.0/24", "192.0.2.8"),
                ("10.42.8.0/24", "fd00::8"),
            ],
        )
        .await;
    assert!(answer.success);
    assert_eq!((answer.added, answer.rejected.len()), (1, 7));
    assert_eq!(host.own_routes().len(), 1);
}

#[tokio::test]
async fn a_bad_host_address_refuses_the_whole_sync() {
    let host = Host::new("bad-address").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    let before = host.state();
    let request = mesh_proto::mesh::SyncPeersRequest {
        generation: 2,
        host_address: "10.42.3.4".to_owned(),
        peers: Vec::new(),
        node_settings: None,
    };
    let answer = daemon
        .dataplane()
        .await
        .sync_peers(request)
        .await
        .unwrap()
        .into_inner();
    assert!(!answer.success);
    assert!(answer.error.contains("cluster CIDR"), "{}", answer.error);
    assert_eq!(answer.generation, 1);
    assert_eq!(host.state(), before);
}

#[tokio::test]
async fn an_overtaken_sync_is_refused_with_the_generation_that_is_applied() {
    let host = Host::new("generation").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.sync(7, &[("10.42.2.0/24", "192.0.2.2")]).await;
    let answer = daemon.sync(6, &[]).await;
    assert!(!answer.success);
    assert!(answer.error.contains("generation 6"), "{}", answer.error);
    assert_eq!(answer.generation, 7);
    assert_eq!(host.own_routes().len(), 1);
}

#[tokio::test]
async fn a_foreign_route_is_refused_whatever_its_metric_and_never_touched() {
    let host = Host::new("foreign").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    host.ip("route add 10.42.2.0/24 via 192.0.2.254 dev eth0");
    host.ip("route add 10.42.3.0/24 via 192.0.2.254 dev eth0 metric 500");
    let foreign = |host: &Host| host.ip("route show via 192.0.2.254");
    let before = foreign(&host);
    for destination in ["10.42.2.0/24", "10.42.3.0/24"] {
        let error = daemon.inject(destination, "vxlan100").await.unwrap_err();
        assert!(
            error.contains(destination) && error.contains("via 192.0.2.254"),
            "{error}"
        );
    }
    let answer = daemon
        .sync(
            1,
            &[("10.42.2.0/24", "192.0.2.2"), ("10.42.4.0/24", "192.0.2.4")],
        )
        .await;
    assert!(answer.success);
    assert_eq!((answer.added, answer.rejected.len()), (1, 1));
    assert!(answer.rejected[0].reason.contains("somebody else"));
    assert!(!daemon.status().await.problems().is_empty());
    daemon.remove("10.42.3.0/24").await.unwrap();
    assert_eq!(foreign(&host), before);
    assert_eq!(host.own_routes().len(), 1);

    // Once it is out of the way, the peer's route takes its place by itself.
    host.ip("route del 10.42.2.0/24");
    host.eventually("the peer's route", |host| host.own_routes().len() == 2)
        .await;
    assert!(daemon.status().await.problems().is_empty());
}

#[tokio::test]
async fn the_subnet_does_not_change_while_addresses_are_in_use() {
    let host = Host::new("in-use").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    host.ip("link add c1 type veth peer name c1-in");
    host.ip("link set c1 master quilt0");
    let before = host.state();
    let error = daemon.configure("10.42.5.0/24").await.unwrap_err();
    assert!(
        error.contains("10.42.1.0/24") && error.contains("c1"),
        "{error}"
    );
    assert_eq!(host.state(), before);

    host.ip("link del c1");
    daemon.configure("10.42.5.0/24").await.unwrap();
    let bridge = host.ip("address show quilt0");
    assert!(
        bridge.contains("10.42.5.1/24") && !bridge.contains("10.42.1.1"),
        "{bridge}"
    );
    assert!(bridge.contains("02:52:0a:2a:05:00"), "{bridge}");
    assert!(host.ip("link show vxlan100").contains("02:51:0a:2a:05:00"));
    assert_eq!(
        host.own_routes(),
        ["10.42.2.0/24 via 10.42.2.0 dev vxlan100 src 10.42.5.1 onlink"]
    );
}

#[tokio::test]
async fn a_subnet_may_pass_from_a_peer_to_this_node_and_back() {
    let host = Host::new("swap").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    daemon.configure("10.42.2.0/24").await.unwrap();
    let answer = daemon.sync(2, &[("10.42.1.0/24", "192.0.2.2")]).await;
    assert!(answer.rejected.is_empty(), "{:?}", answer.rejected);
    assert_eq!(
        host.own_routes(),
        ["10.42.1.0/24 via 10.42.1.0 dev vxlan100 src 10.42.2.1 onlink"]
    );
}

#[tokio::test]
async fn without_root_the_daemon_names_the_capability_and_the_command() {
    // A copy, because user 65534 may not be allowed to look into the build directory.
    let dir = tempfile::tempdir().unwrap();
    let everybody = Permissions::from_mode(0o755);
    fs::set_permissions(dir.path(), everybody).unwrap();
    let binary = dir.path().join("quilt-runtime");
    copy_program(Path::new(env!("CARGO_BIN_EXE_quilt-runtime")), &binary).unwrap();
    let mut command = Command::new(&binary);
    command
        .args(["--grpc-addr", "127.0.0.1:0"])
        .uid(65534)
        .gid(65534);
    let (status, text) = run_to_end(command).await;
    assert!(!status.success());
    assert!(
        text.contains("CAP_NET_ADMIN") && text.contains("sudo"),
        "{text}"
    );
}

#[tokio::test]
async fn options_that_contradict_each_other_are_refused_at_the_start() {
    let netns = NetNs::new("options").await.expect("these tests need root");
    for (args, expected) in [
        (&["--cluster-cidr", "10.42.1.0/16"][..], "host bits"),
        (&["--node-prefix", "16"], "--node-prefix|node prefix /16"),
        (&["--bridge", "vxlan100"], "both named"),
        (&["--bridge", "a/b"], "is not a name"),
        (&["--overlay-interface", "abcdefghijklmnop"], "at most 15"),
        (&["--host-ip", "127.0.0.1"], "loopback"),
        (&["--bpffs", "bpf"], "absolute path"),
        (&["--state-dir", "state"], "absolute path"),
        (
            &["--routed-from", "10.42.7.0/24"],
            "outside the cluster CIDR",
        ),
        (&["--routed-from", "192.0.2.1/24"], "a network address"),
        (&["--log-level", "mesh=loud"], "--log-level"),
        (&["--grpc-addr", "50051"], "--grpc-addr"),
    ] {
        let mut command = netns.command(env!("CARGO_BIN_EXE_quilt-runtime"));
        command.args(args);
        let (status, text) = run_to_end(command).await;
        assert!(!status.success(), "{args:?}");
        let found = expected.split('|').any(|one| text.contains(one));
        assert!(found, "{args:?}: {text}");
    }
}
