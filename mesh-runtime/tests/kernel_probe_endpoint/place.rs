//! Its place in the node's subnet, whom it answers, and what it offers.

use std::net::Ipv4Addr;

use mesh_client::{
    Client,
    mesh::{AllocateAddressRequest, ListAddressesRequest, Owner},
};
use mesh_proto::mesh::GetStatusResponse;
use mesh_testbed::{Daemon, DaemonOptions, PingOptions, Signal, ping, wait_reachable, wait_until};

use crate::{
    pair::{Pair, SOON, configure, start_runtimes},
    scene::{PROBES_A, PROBES_B, index, inside, knows, run, status_where, try_inside, wait_probes},
};

fn owner(container: &str) -> Owner {
    Owner {
        engine: "test".to_owned(),
        network: "quilt".to_owned(),
        container: container.to_owned(),
        interface: "eth0".to_owned(),
    }
}

fn wish(container: &str, address: &str) -> AllocateAddressRequest {
    AllocateAddressRequest {
        owner: Some(owner(container)),
        address: address.to_owned(),
        outlives_boot: true,
        ..AllocateAddressRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_has_one_that_answers_hosts_and_containers_here_and_there() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    let (a, b) = (pair.host_a(), pair.host_b());
    wait_probes(a, PROBES_A).await;
    wait_probes(b, PROBES_B).await;
    for from in [a.netns(), b.netns(), pair.a.netns(), pair.b.netns()] {
        for to in [PROBES_A, PROBES_B] {
            wait_reachable(from, to, SOON).await.unwrap();
        }
    }
    for host in [a, b] {
        assert_eq!(
            host.status().await.unwrap().problems(),
            Vec::<String>::new()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_and_offers_nothing_else_and_has_no_way_out_of_the_cluster() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    let addresses = inside(a, "ip -brief address show");
    let lines: Vec<&str> = addresses.lines().map(str::trim_end).collect();
    assert_eq!(lines.len(), 2, "{addresses}");
    assert!(
        lines[0].starts_with("lo") && lines[0].contains("DOWN"),
        "{addresses}"
    );
    assert!(
        lines[1].ends_with("10.42.1.254/24"),
        "no address of IPv6: {addresses}"
    );
    let routes = inside(a, "ip route show");
    assert!(
        routes.contains("10.42.0.0/16 via 10.42.1.1 dev probe0"),
        "{routes}"
    );
    assert!(!routes.contains("default"), "{routes}");
    assert_eq!(inside(a, "cat /proc/sys/net/ipv4/ip_forward"), "0\n");
    for table in ["tcp", "udp", "raw", "packet", "unix"] {
        let sockets = inside(a, &format!("cat /proc/net/{table}"));
        assert_eq!(sockets.lines().count(), 1, "{table}: {sockets}");
    }
    // From the underlay nobody gets there, whatever route he has.
    let stranger = &testbed.hosts()[2];
    let via = format!("ip route add 10.42.1.0/24 via {}", a.address());
    run(stranger.netns(), &via);
    let answered = ping(stranger.netns(), PROBES_A, PingOptions::default())
        .await
        .unwrap();
    assert_eq!(answered.received(), 0, "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_address_is_leased_to_nobody_and_who_has_it_already_keeps_it_until_he_gives_it_back() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    let mut client = Client::connect(&a.runtime_socket()).await.unwrap();
    let refused = client
        .allocate(wish("web", "10.42.1.254"))
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("quilt-probe (the mesh's own, for meshctl ping)"),
        "{refused}"
    );
    // As one that was leased before there were such endpoints.
    a.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let off = DaemonOptions::new()
        .binary(env!("CARGO_BIN_EXE_quilt-runtime"))
        .args(["--probe-endpoint", "off"]);
    a.start_runtime(&off).await.unwrap();
    assert_eq!(index(a), None);
    let mut client = Client::connect(&a.runtime_socket()).await.unwrap();
    client.allocate(wish("web", "10.42.1.254")).await.unwrap();
    a.stop(Daemon::Runtime, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let on = DaemonOptions::new().binary(env!("CARGO_BIN_EXE_quilt-runtime"));
    a.start_runtime(&on).await.unwrap();
    let told = |status: &GetStatusResponse| {
        let problems = status.problems();
        let mut problems = problems.iter();
        problems.any(|it| it.contains("(test/quilt/web/eth0 has its address 10.42.1.254)"))
    };
    status_where(a, "the problem", told).await;
    assert_eq!(index(a), None);
    let mut client = Client::connect(&a.runtime_socket()).await.unwrap();
    client.release(owner("web")).await.unwrap();
    wait_probes(a, PROBES_A).await;
    status_where(a, "no problem", |status| status.problems().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containers_can_have_is_one_address_less_where_there_is_one() {
    let off = DaemonOptions::new().args(["--probe-endpoint", "off"]);
    let testbed = start_runtimes(&DaemonOptions::new(), &off).await;
    for (host, capacity, address) in [(0, 252, "10.42.1.254"), (1, 253, "")] {
        let socket = testbed.hosts()[host].runtime_socket();
        let mut client = Client::connect(&socket).await.unwrap();
        let list = client
            .addresses(ListAddressesRequest::default())
            .await
            .unwrap();
        assert_eq!((list.capacity, list.leased), (capacity, 0));
        assert_eq!(list.probe_address, address);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_subnet_is_taken_and_it_moves_there() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    // The host knows it as a neighbour.
    wait_reachable(a.netns(), PROBES_A, SOON).await.unwrap();
    configure(a, "10.42.7.0/24").await;
    wait_probes(a, Ipv4Addr::new(10, 42, 7, 254)).await;
    let status = a.status().await.unwrap();
    assert!(status.endpoints.is_empty(), "{:?}", status.endpoints);
    assert_eq!(status.problems(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_as_large_as_the_overlays_packets_also_when_these_become_smaller() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    assert!(inside(a, "ip link show probe0").contains("mtu 1450"));
    testbed.set_underlay_mtu(1400).await.unwrap();
    wait_until("its MTU", SOON, || async {
        let status = a.status().await.map_err(|error| error.to_string())?;
        if !knows(&status, PROBES_A) || status.overlay_mtu != 1350 {
            return Err(format!("{status:?}"));
        }
        let shown = try_inside(a, "ip link show").ok_or("it is being made")?;
        match shown.contains("probe0") && shown.contains("mtu 1350") {
            true => Ok(()),
            false => Err(shown),
        }
    })
    .await
    .unwrap();
}
