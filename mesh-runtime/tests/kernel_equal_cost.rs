//! Equal-cost routes to a peer, over two cards and two switches: flows take the links that the kernel would have them
//! take, in whatever table and form such a route is. Needs root and iproute2.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use mesh_testbed::{Host, PacketSocket, Testbed, wait_until};

mod pair;
use pair::{
    Pair, SOON, counters,
    runtimes::{Runtimes, ip, shown, whatever_the_runtimes_do},
};

/// Flows between the two containers, from as many source ports.
const FLOWS: u16 = 64;
/// Datagrams of each flow.
const ROUNDS: u16 = 3;
const FIRST_PORT: u16 = 20_000;
const SERVED: u16 = 7777;

/// How long a packet that has arrived may take to be read.
const DRAIN: Duration = Duration::from_millis(50);

/// More than a runtime takes to follow a route that has come.
const FOLLOWED: Duration = Duration::from_secs(2);

/// `net.ipv4.fib_multipath_hash_policy`: by the outer addresses, or also by the outer ports.
const BY_ADDRESSES: &str = "0";
const BY_PORTS: &str = "1";

/// How a host is told of the two next hops.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// `ip route … nexthop … nexthop …`
    Hops,
    /// `ip nexthop … group …`
    Objects,
    /// The same, where the kernel shows but the number of an object.
    BareObjects,
    /// In a table that `ip rule from HOST_ADDRESS` leads to.
    OtherTable,
}

impl Form {
    const ALL: [Self; 4] = [
        Self::Hops,
        Self::Objects,
        Self::BareObjects,
        Self::OtherTable,
    ];

    /// Leads from `host` to `peer` over both cards.
    fn lead(self, host: &Host, peer: &Host) {
        let namespace = host.netns();
        let to = peer.address();
        let hops = [(first(peer), "eth0"), (second(peer), "eth1")];
        if let Self::Objects | Self::BareObjects = self {
            let compat = match self {
                Self::BareObjects => "0",
                _ => "1",
            };
            let key = "net/ipv4/nexthop_compat_mode";
            namespace.sysctl(key, compat).unwrap();
            for (id, (via, card)) in (1..).zip(hops) {
                ip(
                    namespace,
                    &format!("nexthop add id {id} via {via} dev {card}"),
                );
            }
            ip(namespace, "nexthop add id 10 group 1/2");
            ip(namespace, &format!("route add {to}/32 nhid 10"));
            return;
        }
        let hops = hops.map(|(via, card)| format!("nexthop via {via} dev {card}"));
        let table = match self {
            Self::OtherTable => 77,
            _ => 254,
        };
        let hops = hops.join(" ");
        ip(
            namespace,
            &format!("route add {to}/32 table {table} {hops}"),
        );
        if let Self::OtherTable = self {
            let from = host.address();
            ip(namespace, &format!("rule add from {from} lookup {table}"));
        }
    }
}

/// The addresses of a host's cards; its own is on loopback, as in a routed fabric, or on the first card.
fn first(host: &Host) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, host.address().octets()[3])
}

fn second(host: &Host) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, host.address().octets()[3])
}

/// Where the hosts have their own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    OnLoopback,
    OnFirstCard,
}

/// Hosts with two cards each, on two switches; they lead to each other over the first.
async fn two_links(own: Own) -> Testbed {
    let testbed = Testbed::builder().hosts(3).build().await.unwrap();
    let switch = testbed.switch();
    ip(switch, "link add br1 type bridge forward_delay 0");
    ip(switch, "link set br1 up");
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    for host in [a, b] {
        testbed.add_card(host, "eth1", 1500).await.unwrap();
        ip(switch, &format!("link set {}-eth1 master br1", host.name()));
        ip(host.netns(), "link set eth1 up");
        let (own_address, card) = (host.address(), first(host));
        if own == Own::OnLoopback {
            ip(
                host.netns(),
                &format!("address del {own_address}/24 dev eth0"),
            );
            ip(
                host.netns(),
                &format!("address add {own_address}/32 dev lo"),
            );
        }
        ip(host.netns(), &format!("address add {card}/24 dev eth0"));
        let card = second(host);
        ip(host.netns(), &format!("address add {card}/24 dev eth1"));
        for setting in ["send_redirects", "accept_redirects"] {
            let key = format!("net/ipv4/conf/eth1/{setting}");
            host.netns().sysctl(&key, "0").unwrap();
        }
    }
    for (from, to) in [(a, b), (b, a)] {
        let (to, via) = (to.address(), first(to));
        let route = format!("route add {to}/32 via {via} dev eth0 metric 100");
        ip(from.netns(), &route);
    }
    testbed
}

/// Two hosts that lead to each other over both links, by the ports of each flow.
async fn over_two_links(runtimes: Runtimes, form: Form) -> (Pair, Flows) {
    let pair = runtimes.pair_on(two_links(Own::OnLoopback).await).await;
    let (a, b) = (pair.host_a(), pair.host_b());
    form.lead(a, b);
    form.lead(b, a);
    hash(&pair, BY_PORTS);
    let flows = Flows::new(&pair);
    // The runtimes follow, and neighbours are learnt.
    wait_until("flows over both links", SOON, || async {
        let seen = flows.links();
        let spread = runtimes == Runtimes::OnKernelPath || seen.links() == both();
        match spread && seen.arrived == FLOWS * ROUNDS {
            true => Ok(()),
            false => Err(format!(
                "{form:?}: {:?}, {} arrived",
                seen.links(),
                seen.arrived
            )),
        }
    })
    .await
    .unwrap();
    runtimes.begin(&pair).await;
    (pair, flows)
}

fn hash(pair: &Pair, policy: &str) {
    for host in [pair.host_a(), pair.host_b()] {
        let key = "net/ipv4/fib_multipath_hash_policy";
        host.netns().sysctl(key, policy).unwrap();
    }
}

fn both() -> BTreeSet<&'static str> {
    ["eth0", "eth1"].into()
}

/// Flows from the container of host A to that of host B. Made once: a process that another test starts holds on to
/// their ports for a moment.
struct Flows {
    senders: Vec<UdpSocket>,
    receiver: UdpSocket,
    to: Ipv4Addr,
    wires: Vec<(&'static str, PacketSocket)>,
}

/// What became of them.
#[derive(Debug, Default)]
struct Seen {
    arrived: u16,
    /// The links over which each came, and the source ports of its outer packets, by its source port.
    by_flow: BTreeMap<u16, BTreeSet<(&'static str, u16)>>,
}

impl Seen {
    fn links(&self) -> BTreeSet<&'static str> {
        let all = self.by_flow.values().flatten();
        all.map(|(link, _)| *link).collect()
    }
}

impl Flows {
    fn new(pair: &Pair) -> Self {
        let bind = |port| move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let ports = FIRST_PORT..FIRST_PORT + FLOWS;
        let receiver = pair.b.netns().run(bind(SERVED)).unwrap();
        receiver.set_read_timeout(Some(DRAIN)).unwrap();
        let wire = |card| {
            (
                card,
                PacketSocket::open(pair.host_b().netns(), card).unwrap(),
            )
        };
        Self {
            senders: ports
                .map(|port| pair.a.netns().run(bind(port)).unwrap())
                .collect(),
            receiver,
            to: pair.b.address(),
            wires: vec![wire("eth0"), wire("eth1")],
        }
    }

    /// Sends some datagrams of each, and sees by which links they come.
    fn links(&self) -> Seen {
        let mut seen = Seen::default();
        for _ in 0..ROUNDS {
            for sender in &self.senders {
                sender.send_to(b"which way?", (self.to, SERVED)).unwrap();
            }
            while self.receiver.recv(&mut [0; 16]).is_ok() {
                seen.arrived += 1;
            }
            for (card, wire) in &self.wires {
                while let Some(frame) = next_frame(wire) {
                    let (flow, outer) = ports(&frame).unwrap();
                    seen.by_flow.entry(flow).or_default().insert((card, outer));
                }
            }
        }
        seen
    }
}

/// The next frame of one of the flows.
fn next_frame(wire: &PacketSocket) -> Option<Vec<u8>> {
    match wire.receive(DRAIN, |it| ports(it).is_some()) {
        // A card that has gone down says so once.
        Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => None,
        other => other.unwrap(),
    }
}

/// The source ports of a frame with VXLAN, inside and outside, if it is of one of the flows.
fn ports(frame: &[u8]) -> Option<(u16, u16)> {
    const OUTER_UDP: usize = 34;
    const INNER_UDP: usize = 84;
    let half = |at: usize| {
        Some(u16::from_be_bytes(
            frame.get(at..at + 2)?.try_into().unwrap(),
        ))
    };
    let vxlan = frame.get(23) == Some(&mesh_layout::PROTOCOL_UDP)
        && half(OUTER_UDP + 2)? == mesh_layout::VXLAN_PORT;
    let ours = vxlan && half(INNER_UDP + 2)? == SERVED;
    Some((half(INNER_UDP)?, half(OUTER_UDP)?)).filter(|_| ours)
}

/// All arrive, and each flow over the link over which the kernel would send a packet with those addresses and ports.
///
/// The kernel's own VXLAN device asks but once: it keeps the answer of the first flow for all flows of a processor
/// (`dst_cache` of a forwarding entry, drivers/net/vxlan/vxlan_core.c), so on the kernel path a flow is on any of the links.
fn assert_as_the_kernel(pair: &Pair, runtimes: Runtimes, seen: &Seen, what: &str) {
    assert_eq!(seen.arrived, FLOWS * ROUNDS, "{what}: {seen:?}");
    assert_eq!(seen.by_flow.len(), usize::from(FLOWS), "{what}: {seen:?}");
    if runtimes == Runtimes::OnKernelPath {
        return;
    }
    let (from, to) = (pair.host_a(), pair.host_b().address());
    let own = from.address();
    for (flow, ways) in &seen.by_flow {
        assert_eq!(ways.len(), 1, "{what}: flow {flow} took {ways:?}");
        let (link, port) = ways.first().unwrap();
        let packet = format!("{to} from {own} ipproto udp sport {port} dport 4789");
        let way = shown(from.netns(), &format!("route get {packet}"));
        assert!(
            way.contains(&format!("dev {link} ")),
            "{what}: flow {flow} took {link}, and the kernel {way}"
        );
    }
}

/// By the ports of the outer packets flows take both links, by their addresses all take one.
async fn flows_take_the_links_that_the_kernel_chooses(runtimes: Runtimes) {
    for form in Form::ALL {
        let (pair, flows) = over_two_links(runtimes, form).await;
        let what = format!("{runtimes:?} {form:?}");
        take_links(&pair, &flows, runtimes, &what, 2).await;
        hash(&pair, BY_ADDRESSES);
        take_links(&pair, &flows, runtimes, &what, 1).await;
    }
}

/// Flows take so many links, each the one that the kernel would choose for it; by the programs, where they carry
/// traffic.
async fn take_links(pair: &Pair, flows: &Flows, runtimes: Runtimes, what: &str, links: usize) {
    let carried = async || match runtimes {
        Runtimes::Alive => {
            let fast_path = counters(pair.host_a()).await.fast_path;
            fast_path.unwrap_or_default().tx_packets
        }
        _ => 0,
    };
    let before = carried().await;
    let seen = flows.links();
    let by_programs = carried().await - before;
    assert_as_the_kernel(pair, runtimes, &seen, what);
    if runtimes != Runtimes::OnKernelPath {
        assert_eq!(seen.links().len(), links, "{what}: {seen:?}");
    }
    if runtimes == Runtimes::Alive {
        assert_eq!(by_programs, u64::from(FLOWS * ROUNDS), "{what}");
    }
}

/// A kernel from 6.16 on prefers the next hop whose own address a packet has: whatever it does, the programs do as well.
async fn flows_of_an_address_of_one_of_the_cards_go_as_the_kernel_sends_them(runtimes: Runtimes) {
    let pair = runtimes.pair_on(two_links(Own::OnFirstCard).await).await;
    let (a, b) = (pair.host_a(), pair.host_b());
    let form = Form::Hops;
    form.lead(a, b);
    form.lead(b, a);
    hash(&pair, BY_PORTS);
    // Before, a flow may take the way that was there.
    tokio::time::sleep(FOLLOWED).await;
    runtimes.begin(&pair).await;
    let seen = Flows::new(&pair).links();
    assert_as_the_kernel(&pair, runtimes, &seen, &format!("{runtimes:?}"));
}

/// Both cards of the second switch go down. As with the kernel path, whatever is sent afterwards arrives, over the
/// other.
async fn a_next_hop_that_goes_down_loses_nothing(runtimes: Runtimes) {
    for form in [Form::Hops, Form::Objects, Form::OtherTable] {
        let (pair, flows) = over_two_links(runtimes, form).await;
        for host in [pair.host_a(), pair.host_b()] {
            ip(host.netns(), "link set eth1 down");
        }
        let seen = flows.links();
        let what = format!("{runtimes:?} {form:?}");
        assert_as_the_kernel(&pair, runtimes, &seen, &what);
        assert_eq!(seen.links(), ["eth0"].into(), "{what}");
    }
}

whatever_the_runtimes_do! {
    flows_take_the_links_that_the_kernel_chooses => [
        flows_take_the_links_that_the_kernel_chooses_on_the_fast_path,
        flows_take_the_links_that_the_kernel_chooses_without_a_runtime,
        flows_take_the_links_that_the_kernel_chooses_beside_a_stopped_runtime,
        flows_take_the_links_that_the_kernel_chooses_on_the_kernel_path
    ];
    flows_of_an_address_of_one_of_the_cards_go_as_the_kernel_sends_them => [
        flows_of_an_address_of_a_card_go_as_the_kernel_sends_them_on_the_fast_path,
        flows_of_an_address_of_a_card_go_as_the_kernel_sends_them_without_a_runtime,
        flows_of_an_address_of_a_card_go_as_the_kernel_sends_them_beside_a_stopped_runtime,
        flows_of_an_address_of_a_card_go_as_the_kernel_sends_them_on_the_kernel_path
    ];
    a_next_hop_that_goes_down_loses_nothing => [
        a_next_hop_that_goes_down_loses_nothing_on_the_fast_path,
        a_next_hop_that_goes_down_loses_nothing_without_a_runtime,
        a_next_hop_that_goes_down_loses_nothing_beside_a_stopped_runtime,
        a_next_hop_that_goes_down_loses_nothing_on_the_kernel_path
    ];
}
