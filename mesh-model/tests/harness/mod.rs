//! The programs of the object the runtime carries, in the kernel but attached to nothing, and
//! a network namespace whose devices they may ask about.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

pub(crate) mod node;
mod programs;

pub(crate) use programs::{Programs, coarse_now};

use std::{collections::BTreeMap, net::Ipv4Addr};

use mesh_layout::{ETHERNET_LEN, IPV4_LEN};
use mesh_model::{Arrival, Ipv4, Node, Outcome, Program, SOURCE_PORTS, Udp, Way};
use mesh_testbed::{Links, NetNs};

use mesh_model::generate::OTHER_ADDRESS;
pub(crate) use node::OVERLAY_MTU;
use node::{
    BY_GATEWAY, ELSEWHERE, HOST, NARROW, NARROW_MTU, NOWHERE, OTHER_PEER, PORT, SIBLING_PORT,
    UNDERLAY, UNDERLAY_GATEWAY, UNDERLAY_MTU,
};

/// A namespace with a device that stands in for the overlay's, of [`OVERLAY_MTU`], and for
/// the underlay's, and two that stand in for ports. What the programs ask the kernel are its MTU,
/// where packets are routed, and which ports there are.
pub(crate) struct Ground {
    pub(crate) namespace: NetNs,
    pub(crate) overlay_link: u32,
}

impl Ground {
    pub(crate) async fn new(label: &str) -> Self {
        let namespace = NetNs::new(label)
            .await
            .expect("these tests load programs into the kernel");
        let overlay_link = add_device(&namespace, "overlay", OVERLAY_MTU).await;
        // The programs ask whether the kernel would send a packet on: all but to these.
        for address in [HOST, OTHER_ADDRESS] {
            ip(&namespace, &format!("address add {address}/32 dev overlay"));
        }
        ip(
            &namespace,
            &format!("link add underlay index {UNDERLAY} mtu {UNDERLAY_MTU} type bridge"),
        );
        ip(&namespace, "link set underlay up");
        ip(&namespace, "route add default dev underlay");
        for route in [
            format!("{OTHER_PEER} via {UNDERLAY_GATEWAY} dev underlay onlink"),
            format!("{BY_GATEWAY} via {UNDERLAY_GATEWAY} dev underlay onlink"),
            format!("{NARROW} dev underlay mtu lock {NARROW_MTU}"),
            format!("{ELSEWHERE} dev overlay"),
            format!("unreachable {NOWHERE}"),
        ] {
            ip(&namespace, &format!("route add {route}"));
        }
        for port in [PORT, SIBLING_PORT] {
            ip(
                &namespace,
                &format!("link add port{port} index {port} type bridge"),
            );
        }
        namespace.sysctl("net/ipv4/ip_forward", "1").unwrap();
        Self {
            namespace,
            overlay_link,
        }
    }
}

/// The ways that [`Ground`] has to these addresses.
pub(crate) fn ways(
    overlay_link: u32,
    addresses: impl IntoIterator<Item = Ipv4Addr>,
) -> BTreeMap<Ipv4Addr, Way> {
    let direct = |address| Way {
        link: UNDERLAY,
        next_hop: address,
        mtu: UNDERLAY_MTU,
    };
    addresses
        .into_iter()
        .filter(|address| *address != NOWHERE)
        .map(|address| {
            let way = match address {
                OTHER_PEER | BY_GATEWAY => Way {
                    next_hop: UNDERLAY_GATEWAY,
                    ..direct(address)
                },
                NARROW => Way {
                    mtu: NARROW_MTU,
                    ..direct(address)
                },
                ELSEWHERE => Way {
                    link: overlay_link,
                    mtu: OVERLAY_MTU,
                    ..direct(address)
                },
                _ => direct(address),
            };
            (address, way)
        })
        .collect()
}

/// Adds a device with this MTU and returns its index.
pub(crate) async fn add_device(namespace: &NetNs, name: &str, mtu: u32) -> u32 {
    let links = Links::of(namespace).unwrap();
    links.add_bridge(name, mtu).await.unwrap();
    links.index(name).await.unwrap().unwrap()
}

/// Runs `ip` inside the namespace.
pub(crate) fn ip(namespace: &NetNs, arguments: &str) {
    iproute2(namespace, "ip", arguments);
}

/// Runs a program of iproute2 inside the namespace.
pub(crate) fn iproute2(namespace: &NetNs, program: &str, arguments: &str) {
    let output = namespace
        .command(program)
        .args(arguments.split_whitespace())
        .output()
        .expect("these tests need iproute2");
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A packet as it is pasted into a named case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a packet through program and model and returns what differs, if anything does: the
/// action, the packet, the source port's range. Counters and events are compared by the
/// caller, from the model's outcome.
pub(crate) fn compare(
    programs: &mut Programs,
    program: Program,
    node: &Node,
    arrival: &Arrival<'_>,
) -> (Outcome, Option<String>) {
    let ran = programs.run(program, arrival);
    // The flow's port is the kernel's choice; it is read where encapsulation puts it.
    let grown = ran.packet.len() > arrival.packet.len();
    let port = Udp::read(ran.packet.get(UDP_AT..).unwrap_or_default()).map(|udp| udp.source);
    let flow_port = port.filter(|_| grown).unwrap_or(0);
    // So is the outer header's identification.
    let outer = ran.packet.get(ETHERNET_LEN..).and_then(Ipv4::read);
    let identification = outer.filter(|_| grown).map_or(0, |ip| ip.identification);
    let outcome = program.judge(
        node,
        &Arrival {
            flow_port,
            identification,
            ..*arrival
        },
    );
    let same = ran.action == Program::action(outcome.verdict)
        && ran.packet == outcome.packet
        && (!grown || SOURCE_PORTS.contains(&flow_port));
    let difference = (!same).then(|| {
        format!(
            "{program:?} on {arrived} ({arrival_length} bytes, segments of {segment}) by {link}\n  \
             program: action {action}, packet {ran}\n  \
             model: {verdict:?} = action {model_action}, packet {model}\n  node: {node:?}",
            arrived = hex(arrival.packet),
            arrival_length = arrival.packet.len(),
            segment = arrival.segment_size,
            link = arrival.link,
            action = ran.action,
            ran = hex(ran.packet),
            verdict = outcome.verdict,
            model_action = Program::action(outcome.verdict),
            model = hex(&outcome.packet),
        )
    });
    (outcome, difference)
}

/// Where the outer UDP header of an encapsulated packet is.
const UDP_AT: usize = ETHERNET_LEN + IPV4_LEN;
