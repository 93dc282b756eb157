//! What changes under a runtime that is not looking: a container made again, a card made again, another
//! gateway, a smaller MTU, another card by a policy rule, a narrow link on the way. Each with the runtime alive, killed and
//! stopped, with its programs in place, and on the kernel path. Needs root and iproute2.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use mesh_testbed::{
    Echo, Host, NetNs, PacketSocket, PingOptions, PingReport, ping, transfer, wait_reachable,
    wait_until,
};

mod pair;
use pair::{
    Forged, Pair, SOON, counters,
    runtimes::{Runtimes, ip, shown, whatever_the_runtimes_do},
};

async fn five(pair: &Pair, payload: usize) -> [PingReport; 2] {
    let options = PingOptions {
        count: 5,
        payload,
        ..PingOptions::default()
    };
    let there = ping(pair.a.netns(), pair.b.address(), options).await;
    let back = ping(pair.b.netns(), pair.a.address(), options).await;
    [there.unwrap(), back.unwrap()]
}

/// For how long the programs go by what the kernel has told them of a way: two ticks, the longest where there
/// are a hundred a second. What is sent within it may still go where it went before.
const REMEMBERED: Duration = Duration::from_millis(30);

/// Five of five arrive, both ways.
async fn all_arrive(pair: &Pair, runtimes: Runtimes, payload: usize) {
    tokio::time::sleep(REMEMBERED).await;
    if runtimes.is_alive() {
        // It follows, and may take a moment for it.
        wait_reachable(pair.a.netns(), pair.b.address(), SOON)
            .await
            .unwrap();
    }
    for report in five(pair, payload).await {
        assert!(report.is_complete(), "{runtimes:?}: {report:?}");
    }
}

/// MAC address of an interface.
fn mac_of(namespace: &NetNs, interface: &str) -> String {
    let shown = shown(namespace, &format!("-brief link show dev {interface}"));
    shown.split_whitespace().nth(2).unwrap().to_owned()
}

/// Makes the container of host A again: another network namespace, another pair of interfaces with the
/// same names, addresses and MAC address.
async fn remake_container(pair: &Pair, label: &str) -> NetNs {
    let host = pair.host_a().netns();
    let (port, address) = (pair.a.host_interface(), pair.a.address());
    let mac = mac_of(pair.a.netns(), "eth0");
    ip(host, &format!("link del {port}"));
    let again = NetNs::new(label).await.unwrap();
    ip(
        host,
        &format!(
            "link add {port} mtu 1450 type veth peer name eth0 address {mac} mtu 1450 netns {}",
            again.name()
        ),
    );
    ip(host, &format!("link set {port} master quilt0 up"));
    ip(&again, "link set lo up");
    ip(&again, &format!("address add {address}/24 dev eth0"));
    ip(&again, "link set eth0 up");
    ip(&again, "route add default via 10.42.1.1");
    again
}

async fn a_container_made_again_is_reached(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    runtimes.begin(&pair).await;
    let again = remake_container(&pair, &format!("again-{runtimes:?}").to_lowercase()).await;
    if runtimes.is_alive() {
        wait_reachable(pair.b.netns(), pair.a.address(), SOON)
            .await
            .unwrap();
    }
    let options = PingOptions {
        count: 5,
        ..PingOptions::default()
    };
    for (from, to) in [
        (pair.b.netns(), pair.a.address()),
        (&again, pair.b.address()),
    ] {
        let report = ping(from, to, options).await.unwrap();
        assert!(report.is_complete(), "{runtimes:?} to {to}: {report:?}");
    }
}

/// Makes the card of host B again, with its address.
fn remake_card(pair: &Pair) {
    let (host, switch) = (pair.host_b(), pair.testbed.switch());
    let bridge = shown(switch, "-brief link show type bridge");
    let bridge = bridge.split_whitespace().next().unwrap().to_owned();
    ip(host.netns(), "link del eth0");
    ip(
        switch,
        &format!(
            "link add {port} type veth peer name eth0 netns {}",
            host.netns().name(),
            port = host.name()
        ),
    );
    ip(
        switch,
        &format!("link set {} master {bridge} up", host.name()),
    );
    let address = host.address();
    ip(host.netns(), &format!("address add {address}/24 dev eth0"));
    ip(host.netns(), "link set eth0 up");
}

async fn a_card_made_again_carries_packets(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    runtimes.begin(&pair).await;
    remake_card(&pair);
    // The others have to learn of its MAC address, as of any card's.
    ip(pair.host_a().netns(), "neigh flush dev eth0");
    all_arrive(&pair, runtimes, 56).await;
}

/// A host that routes.
fn becomes_router(host: &Host) {
    let namespace = host.netns();
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/eth0/send_redirects", "0"),
    ] {
        namespace.sysctl(key, value).unwrap();
    }
}

/// Has host A send to host B by the third host, and the other way round.
fn route_by_router(pair: &Pair) {
    let (a, b) = (pair.host_a(), pair.host_b());
    let router = pair.stranger().address();
    for (from, to) in [(a, b), (b, a)] {
        ip(
            from.netns(),
            &format!("route replace {} via {router} dev eth0", to.address()),
        );
    }
}

async fn another_gateway_is_used_at_once(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    becomes_router(pair.stranger());
    route_by_router(&pair);
    all_arrive(&pair, Runtimes::Alive, 56).await;
    runtimes.begin(&pair).await;
    // The gateway stops routing, and the hosts are told of another way: the direct one.
    pair.stranger()
        .netns()
        .sysctl("net/ipv4/ip_forward", "0")
        .unwrap();
    for (from, to) in [
        (pair.host_a(), pair.host_b()),
        (pair.host_b(), pair.host_a()),
    ] {
        ip(from.netns(), &format!("route del {}", to.address()));
    }
    all_arrive(&pair, runtimes, 56).await;
}

async fn a_smaller_mtu_of_the_card_loses_nothing(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    runtimes.begin(&pair).await;
    // Of both: what is larger than its own MTU, a card of this kind does not take either.
    for host in [pair.host_a(), pair.host_b()] {
        ip(host.netns(), "link set eth0 mtu 1300");
    }
    if runtimes.is_alive() {
        // While it follows, the devices change.
        wait_reachable(pair.a.netns(), pair.b.address(), SOON)
            .await
            .unwrap();
        five(&pair, 1370).await;
    } else {
        // A container may be told of the smaller MTU, as the kernel's tunnels do it, and sends smaller packets
        // from then on; nothing vanishes.
        for report in five(&pair, 1370).await {
            assert!(
                !report.echoes.contains(&Echo::Lost),
                "{runtimes:?}: {report:?}"
            );
        }
    }
    all_arrive(&pair, runtimes, 1370).await;
}

async fn a_narrow_link_between_the_hosts_loses_nothing(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    let router = pair.stranger();
    becomes_router(router);
    for host in [pair.host_a(), pair.host_b()] {
        ip(
            router.netns(),
            &format!("route add {} dev eth0 mtu lock 1400", host.address()),
        );
    }
    route_by_router(&pair);
    runtimes.begin(&pair).await;
    all_arrive(&pair, runtimes, 1370).await;
}

async fn a_rule_for_the_hosts_address_decides_by_which_card_packets_leave(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    let a = pair.host_a();
    pair.testbed.add_card(a, "eth1", 1500).await.unwrap();
    let taken = a.address().octets();
    let second = Ipv4Addr::new(taken[0], taken[1], taken[2], 200);
    ip(a.netns(), "link set eth1 up");
    ip(a.netns(), &format!("address add {second}/32 dev eth1"));
    runtimes.begin(&pair).await;
    ip(
        a.netns(),
        &format!("route add {} dev eth1 table 77", pair.host_b().address()),
    );
    ip(
        a.netns(),
        &format!("rule add from {} lookup 77", a.address()),
    );
    // What the programs were told of the way is good for a moment.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = statistics(a.netns(), "eth1");
    all_arrive(&pair, runtimes, 56).await;
    let after = statistics(a.netns(), "eth1");
    // Five requests and five replies, whatever else leaves there.
    assert!(after - before >= 10, "{runtimes:?}: {before} to {after}");
}

/// The programs ask no VXLAN device how large a packet may be that is still to be cut into segments.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_vxlan_device_on_either_host_large_packets_pass_the_fast_path() {
    let pair = Runtimes::Killed.pair().await;
    Runtimes::Killed.begin(&pair).await;
    for host in [pair.host_a(), pair.host_b()] {
        ip(host.netns(), "link del vxlan100");
    }
    let copied = transfer(
        pair.a.netns(),
        pair.b.netns(),
        pair.b.address(),
        20_000_000,
        SOON,
    );
    assert!(copied.await.unwrap().is_intact());
}

fn tc(namespace: &NetNs, words: &str) -> String {
    let mut command = namespace.command("tc");
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "tc {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a container's packets take the kernel path for a reason that is said, or do not.
async fn is_left_to_the_kernel(pair: &Pair, left: bool) {
    let address = pair.a.address().to_string();
    wait_until("what the status says of the container", SOON, || async {
        let status = pair.host_a().status().await.unwrap();
        let endpoint = status.endpoints.iter().find(|it| it.address == address);
        match endpoint {
            Some(it) if it.kernel_path.contains("tc") == left => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

/// Shaping of what a container gets, as the CNI plugin `bandwidth` sets it up.
async fn what_a_container_gets_is_shaped(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    let (host, port) = (pair.host_a().netns(), pair.a.host_interface());
    wait_reachable(pair.a.netns(), pair.b.address(), SOON)
        .await
        .unwrap();
    tc(
        host,
        &format!("qdisc add dev {port} root tbf rate 100mbit burst 32kbit latency 400ms"),
    );
    is_left_to_the_kernel(&pair, true).await;
    all_arrive(&pair, runtimes, 56).await;
    let shown = tc(host, &format!("-statistics qdisc show dev {port}"));
    let (_, sent) = shown.split_once(" bytes ").unwrap();
    let packets: u32 = sent.split_whitespace().next().unwrap().parse().unwrap();
    // Five requests and five replies, whatever else came.
    assert!(packets >= 10, "{shown}");
    tc(host, &format!("qdisc del dev {port} root"));
    is_left_to_the_kernel(&pair, false).await;
    all_arrive(&pair, runtimes, 56).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_shapes_is_left_to_the_kernel_where_the_fast_path_carries_traffic() {
    what_a_container_gets_is_shaped(Runtimes::Alive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_shapes_is_shaped_on_the_kernel_path() {
    what_a_container_gets_is_shaped(Runtimes::OnKernelPath).await;
}

/// Policies of IPsec that let no VXLAN through, one for each direction.
async fn a_policy_that_blocks_is_heeded(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    let host = pair.host_a();
    let (own, other) = (host.address(), pair.host_b().address());
    for (source, destination, direction) in [(own, other, "out"), (other, own, "in")] {
        let selector =
            format!("src {source}/32 dst {destination}/32 proto udp dport 4789 dir {direction}");
        ip(
            host.netns(),
            &format!("xfrm policy add {selector} action block"),
        );
        wait_until("nothing passes", SOON, || async {
            let options = PingOptions {
                count: 3,
                ..PingOptions::default()
            };
            let there = ping(pair.a.netns(), pair.b.address(), options)
                .await
                .unwrap();
            let back = ping(pair.b.netns(), pair.a.address(), options)
                .await
                .unwrap();
            match there.received() + back.received() {
                0 => Ok(()),
                some => Err(format!("{some} replies, with {direction}")),
            }
        })
        .await
        .unwrap();
        let problems = host.status().await.unwrap().problems();
        let named = problems
            .iter()
            .any(|it| it.contains(&format!("to or from {other}")));
        assert!(named, "{problems:?}");
        ip(host.netns(), &format!("xfrm policy delete {selector}"));
        all_arrive(&pair, runtimes, 56).await;
        wait_until("no problem any more", SOON, || async {
            let problems = host.status().await.unwrap().problems();
            problems
                .is_empty()
                .then_some(())
                .ok_or(format!("{problems:?}"))
        })
        .await
        .unwrap();
    }
    if runtimes == Runtimes::Alive {
        pair.wait_fast().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_ipsec_is_heeded_where_the_fast_path_carries_traffic() {
    a_policy_that_blocks_is_heeded(Runtimes::Alive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_ipsec_is_heeded_on_the_kernel_path() {
    a_policy_that_blocks_is_heeded(Runtimes::OnKernelPath).await;
}

/// Frames that an interface has sent, as `ip` shows them.
fn statistics(namespace: &NetNs, interface: &str) -> u64 {
    let shown = shown(namespace, &format!("-stats link show dev {interface}"));
    let sent = shown.split("TX:").nth(1).unwrap();
    let line = sent.lines().nth(1).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

whatever_the_runtimes_do! {
    a_container_made_again_is_reached => [
        a_container_made_again_is_reached_on_the_fast_path,
        a_container_made_again_without_a_runtime_is_reached,
        a_container_made_again_beside_a_stopped_runtime_is_reached,
        a_container_made_again_is_reached_on_the_kernel_path
    ];
    a_card_made_again_carries_packets => [
        a_card_made_again_carries_packets_on_the_fast_path,
        a_card_made_again_without_a_runtime_carries_packets,
        a_card_made_again_beside_a_stopped_runtime_carries_packets,
        a_card_made_again_carries_packets_on_the_kernel_path
    ];
    another_gateway_is_used_at_once => [
        another_gateway_is_used_at_once_on_the_fast_path,
        another_gateway_is_used_at_once_without_a_runtime,
        another_gateway_is_used_at_once_beside_a_stopped_runtime,
        another_gateway_is_used_at_once_on_the_kernel_path
    ];
    a_smaller_mtu_of_the_card_loses_nothing => [
        a_smaller_mtu_of_the_card_loses_nothing_on_the_fast_path,
        a_smaller_mtu_of_the_card_loses_nothing_without_a_runtime,
        a_smaller_mtu_of_the_card_loses_nothing_beside_a_stopped_runtime,
        a_smaller_mtu_of_the_card_loses_nothing_on_the_kernel_path
    ];
    a_narrow_link_between_the_hosts_loses_nothing => [
        a_narrow_link_between_the_hosts_loses_nothing_on_the_fast_path,
        a_narrow_link_between_the_hosts_loses_nothing_without_a_runtime,
        a_narrow_link_between_the_hosts_loses_nothing_beside_a_stopped_runtime,
        a_narrow_link_between_the_hosts_loses_nothing_on_the_kernel_path
    ];
    a_rule_for_the_hosts_address_decides_by_which_card_packets_leave => [
        a_rule_for_the_hosts_address_is_followed_on_the_fast_path,
        a_rule_for_the_hosts_address_is_followed_without_a_runtime,
        a_rule_for_the_hosts_address_is_followed_beside_a_stopped_runtime,
        a_rule_for_the_hosts_address_is_followed_on_the_kernel_path
    ];
}

/// A frame with VXLAN from one host to another behind a tag that names no VLAN, only a priority.
fn with_priority_tag(from: &Host, to: &Host, vxlan: &[u8]) -> Vec<u8> {
    let mac = |host: &Host| -> Vec<u8> {
        let text = mac_of(host.netns(), "eth0");
        text.split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    };
    let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    let mut frame = [mac(to), mac(from)].concat();
    frame.extend([0x81, 0, 0xa0, 0, 0x08, 0]);
    let mut ip = vec![0x45, 0];
    ip.extend(length(28 + vxlan.len()));
    ip.extend([0, 1, 0, 0, 64, mesh_layout::PROTOCOL_UDP, 0, 0]);
    ip.extend(from.address().octets());
    ip.extend(to.address().octets());
    let words = ip
        .chunks(2)
        .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend(50_000_u16.to_be_bytes());
    frame.extend(mesh_layout::VXLAN_PORT.to_be_bytes());
    frame.extend(length(8 + vxlan.len()));
    frame.extend([0, 0]);
    frame.extend(vxlan);
    frame
}

async fn a_tag_that_names_no_vlan_hides_nothing(runtimes: Runtimes) {
    let pair = runtimes.pair().await;
    let listener = pair
        .a
        .netns()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7777)))
        .unwrap()
        .unwrap();
    listener.set_read_timeout(Some(SOON)).unwrap();
    let packet = Forged::proper(pair.b.address(), pair.a.address(), 7777, b"tagged").bytes();
    let frame = with_priority_tag(pair.host_b(), pair.host_a(), &packet);
    let wire = PacketSocket::open(pair.host_b().netns(), "eth0").unwrap();
    wire.send(&frame).unwrap();
    let mut buffer = [0; 64];
    let length = listener.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"tagged");
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_with_a_tag_that_names_no_vlan_are_delivered_by_the_fast_path_or_beside_it() {
    a_tag_that_names_no_vlan_hides_nothing(Runtimes::Alive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_with_a_tag_that_names_no_vlan_are_delivered_on_the_kernel_path() {
    a_tag_that_names_no_vlan_hides_nothing(Runtimes::OnKernelPath).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_of_the_other_family_leads_to_a_peer_on_the_fast_path() {
    let pair = Runtimes::Alive.pair().await;
    let (a, b) = (pair.host_a(), pair.host_b());
    // As on an unnumbered fabric: IPv4 routes over IPv6 neighbours.
    for (host, own, other) in [(a, "fe80::a", "fe80::b"), (b, "fe80::b", "fe80::a")] {
        let namespace = host.netns();
        namespace
            .sysctl("net/ipv6/conf/eth0/disable_ipv6", "0")
            .unwrap();
        ip(
            namespace,
            &format!("address add {own}/64 dev eth0 nodad scope link"),
        );
        let peer = if host.name() == a.name() { b } else { a };
        ip(
            host.netns(),
            &format!("route add {} via inet6 {other} dev eth0", peer.address()),
        );
    }
    wait_reachable(pair.a.netns(), pair.b.address(), SOON)
        .await
        .unwrap();
    let before = counters(a).await.fast_path.unwrap_or_default().tx_packets;
    for report in five(&pair, 56).await {
        assert!(report.is_complete(), "{report:?}");
    }
    let after = counters(a).await.fast_path.unwrap_or_default().tx_packets;
    assert_eq!(after - before, 10, "requests and replies, by the programs");
}
