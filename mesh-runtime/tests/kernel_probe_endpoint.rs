//! The endpoint for probes on the real kernel: it is there whatever becomes of it, in nobody's way, and offers nothing. Needs
//! root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{net::Ipv4Addr, process::Command};

use mesh_client::{
    Client,
    mesh::{AllocateAddressRequest, ListAddressesRequest, Owner},
};
use mesh_proto::mesh::GetStatusResponse;
use mesh_testbed::{
    Daemon, DaemonOptions, Host, NetNs, PingOptions, Signal, UdpFlow, UdpFlowOptions, ping,
    wait_reachable, wait_until,
};

mod pair;
use pair::{Pair, SOON, configure, start_runtimes};

const PROBES_A: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 254);
const PROBES_B: Ipv4Addr = Ipv4Addr::new(10, 42, 2, 254);

fn run(namespace: &NetNs, words: &str) -> String {
    let mut words = words.split_whitespace();
    let mut command = namespace.command(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn index(host: &Host) -> Option<u32> {
    let shown = run(host.netns(), "ip -oneline link show");
    let line = shown
        .lines()
        .find(|line| line.contains(": quilt-probe@"))?
        .to_owned();
    line.split(':').next()?.parse().ok()
}

async fn status_where(
    host: &Host,
    what: &str,
    holds: impl Fn(&GetStatusResponse) -> bool,
) -> GetStatusResponse {
    wait_until(what, SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match holds(&status) {
            true => Ok(status),
            false => Err(format!("{:?} {:?}", status.probe_endpoint, status.problems)),
        }
    })
    .await
    .unwrap()
}

fn knows(status: &GetStatusResponse, address: Ipv4Addr) -> bool {
    status.probe_endpoint == address.to_string()
}

async fn wait_probes(host: &Host, address: Ipv4Addr) {
    status_where(host, "the endpoint for probes", |status| {
        knows(status, address)
    })
    .await;
}

async fn wait_gone(host: &Host) {
    wait_until("no endpoint for probes", SOON, || async {
        index(host).map_or(Ok(()), |index| Err(format!("interface {index}")))
    })
    .await
    .unwrap();
}

/// Runs something in the namespace of the endpoint for probes, by the runtime's own descriptor.
fn inside(host: &Host, words: &str) -> String {
    try_inside(host, words).expect("the runtime holds a namespace")
}

/// `None` while it holds none.
fn try_inside(host: &Host, words: &str) -> Option<String> {
    let pid = host.pid(Daemon::Runtime).unwrap();
    let own = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut namespaces = paths.filter(|path| {
        std::fs::read_link(path)
            .is_ok_and(|to| to.to_string_lossy().starts_with("net:[") && to != own)
    });
    let namespace = namespaces.next()?;
    let output = Command::new("nsenter")
        .arg(format!("--net={}", namespace.display()))
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{words}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
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
        assert_eq!(host.status().await.unwrap().problems, Vec::<String>::new());
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
async fn whatever_somebody_does_to_it_it_comes_back() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    for change in [
        "ip link delete quilt-probe",
        "ip link set quilt-probe nomaster",
        "ip link set quilt-probe down",
    ] {
        wait_probes(a, PROBES_A).await;
        let before = index(a).unwrap();
        run(a.netns(), change);
        wait_until(change, SOON, || async {
            let now = index(a);
            let status = a.status().await.map_err(|error| error.to_string())?;
            match now.is_some_and(|it| it != before) && knows(&status, PROBES_A) {
                true => Ok(()),
                false => Err(format!("{before} {now:?} {:?}", status.probe_endpoint)),
            }
        })
        .await
        .unwrap();
        wait_reachable(a.netns(), PROBES_A, SOON).await.unwrap();
    }
    wait_probes(a, PROBES_A).await;
    let before = index(a).unwrap();
    inside(a, "ip address flush dev probe0");
    wait_until("its address", SOON, || async {
        let now = index(a);
        now.filter(|&it| it != before)
            .map(|_| ())
            .ok_or(format!("{now:?}"))
    })
    .await
    .unwrap();
    wait_reachable(a.netns(), PROBES_A, SOON).await.unwrap();
}

/// The namespace ends with the process, and with it the interface: nobody else is to notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_runtime_takes_it_away_and_brings_it_back_and_nobody_loses_a_packet() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let (a, b) = (pair.host_a(), pair.host_b());
    wait_probes(a, PROBES_A).await;
    let routes = || run(a.netns(), "ip route show");
    let before = (routes(), index(a).unwrap());
    let options = UdpFlowOptions::default();
    let there = UdpFlow::start(pair.a.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    let back = UdpFlow::start(pair.b.netns(), pair.a.netns(), pair.a.address(), options).unwrap();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        a.stop(Daemon::Runtime, signal, SOON).await.unwrap();
        wait_gone(a).await;
        assert_eq!(routes(), before.0);
        a.restart(Daemon::Runtime).unwrap();
        a.wait_ready(SOON).await.unwrap();
        wait_probes(a, PROBES_A).await;
    }
    for flow in [there, back] {
        let report = flow.stop().await.unwrap();
        assert!(report.outages.is_empty(), "{report:?}");
    }
    assert_eq!(routes(), before.0);
    assert_ne!(index(a).unwrap(), before.1);
    wait_reachable(b.netns(), PROBES_A, SOON).await.unwrap();
    assert_eq!(a.status().await.unwrap().problems, Vec::<String>::new());
}

/// A runtime that comes before the kernel has taken the namespace away finds the interface still there.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_an_earlier_process_left_is_replaced() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    a.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    wait_gone(a).await;
    let left = NetNs::new("left").await.unwrap();
    let path = left.path().display().to_string();
    let netns = path.rsplit('/').next().unwrap();
    run(
        a.netns(),
        "ip link add quilt-probe address fe:51:00:00:00:01 type veth peer name other",
    );
    run(a.netns(), "ip link set quilt-probe master quilt0 up");
    run(a.netns(), &format!("ip link set other netns {netns}"));
    let before = index(a).unwrap();
    a.restart(Daemon::Runtime).unwrap();
    a.wait_ready(SOON).await.unwrap();
    wait_probes(a, PROBES_A).await;
    assert_ne!(index(a), Some(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_of_its_name_that_somebody_else_made_is_left_alone_and_told() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    a.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    wait_gone(a).await;
    run(
        a.netns(),
        "ip link add quilt-probe type veth peer name other",
    );
    let before = index(a).unwrap();
    a.restart(Daemon::Runtime).unwrap();
    a.wait_ready(SOON).await.unwrap();
    let told = |status: &GetStatusResponse| {
        let mut problems = status.problems.iter();
        problems.any(|it| it.contains("no endpoint for probes (quilt-probe is a veth device"))
    };
    status_where(a, "the problem", told).await;
    assert_eq!(index(a), Some(before));
    run(a.netns(), "ip link delete quilt-probe");
    wait_probes(a, PROBES_A).await;
    status_where(a, "no problem", |status| status.problems.is_empty()).await;
}

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
        let mut problems = status.problems.iter();
        problems.any(|it| it.contains("(test/quilt/web/eth0 has its address 10.42.1.254)"))
    };
    status_where(a, "the problem", told).await;
    assert_eq!(index(a), None);
    let mut client = Client::connect(&a.runtime_socket()).await.unwrap();
    client.release(owner("web")).await.unwrap();
    wait_probes(a, PROBES_A).await;
    status_where(a, "no problem", |status| status.problems.is_empty()).await;
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
    assert_eq!(status.problems, Vec::<String>::new());
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

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_leaves_nothing_of_it() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    wait_probes(a, PROBES_A).await;
    a.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
        .await
        .unwrap();
    // At once, whether the kernel has taken the namespace away by now or not.
    let mut command = a.netns().command(env!("CARGO_BIN_EXE_quilt-runtime"));
    let state = a.runtime_state_dir();
    let cleaned = command
        .arg("--cleanup")
        .args(["--bpffs".as_ref(), a.bpffs_dir().as_os_str()])
        .args(["--state-dir".as_ref(), state.as_os_str()])
        .args(["--socket".as_ref(), a.runtime_socket().as_os_str()])
        .output()
        .unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    let links = run(a.netns(), "ip -oneline link show");
    assert!(!links.contains("quilt"), "{links}");
}
