//! What BPF_PROG_TEST_RUN does not show: out of which interface a redirected packet comes, to
//! which neighbour, and what the kernel behind the programs takes from whom. The programs are
//! attached to the interfaces of a small host. Needs root and iproute2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{collections::BTreeSet, net::Ipv4Addr};

use aya::programs::{TcAttachType, tc::qdisc_add_clsact};
use mesh_layout::{
    CONFIG_GUARD_TAGGED, DropReason, ENDPOINT_HELD, Endpoint, EndpointKey, MacHolder, MacKey,
    PassReason, Underlay, UnderlayKey,
};
use mesh_model::{
    ArpFrame, Arrival, Ethernet, Frame, Ipv4, Ipv6Frame, Ledger, Node, Outcome, Program, Redirect,
    Udp, Verdict, Way, tagged,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

mod harness;
mod wire;

use harness::{
    Programs, hex, ip,
    node::{
        CONTAINER, GATEWAY, OTHER_PEER, OTHER_REMOTE, PEER, REMOTE, SIBLING, STRANGER,
        from_container, from_peer, two_peers, vxlan_from,
    },
};
use wire::{
    GATEWAY_NEIGHBOUR_MAC, HOST_MAC, NEIGHBOUR_MAC, PacketSocket, Wire, container_mac, is_vxlan,
};

const UDP: usize = 34;

/// The wire with the programs attached as the runtime attaches them, and their node.
struct Attached {
    wire: Wire,
    node: Node,
    /// Keeps the programs attached.
    programs: Programs,
    containers: [PacketSocket; 2],
    underlays: [PacketSocket; 2],
}

impl Attached {
    async fn new(label: &str) -> Self {
        let wire = Wire::new(label).await;
        let node = node_of(&wire);
        let mut programs = wire.host.run(Programs::load).unwrap();
        programs.show(&node);
        wire.host
            .run(|| {
                for (program, interfaces) in [
                    (Program::Decapsulate, ["eth0", "eth1"]),
                    (Program::Encapsulate, ["port0", "port1"]),
                ] {
                    for interface in interfaces {
                        attach(&mut programs, program, interface);
                    }
                }
                attach(&mut programs, Program::SafetyNet, "vxlan100");
            })
            .unwrap();
        let sockets = |namespace| ["eth0", "eth1"].map(|it| PacketSocket::open(namespace, it));
        Self {
            containers: sockets(&wire.containers),
            underlays: sockets(&wire.world),
            wire,
            node,
            programs,
        }
    }

    /// What becomes of a packet; a container's is the first one's.
    fn judge(&self, program: Program, packet: &[u8]) -> Outcome {
        self.judge_tagged(program, packet, [0; 2], None)
    }

    /// The same of a packet off which the kernel has taken a VLAN tag.
    fn judge_tagged(
        &self,
        program: Program,
        packet: &[u8],
        [flow_port, identification]: [u16; 2],
        vlan_tag: Option<u16>,
    ) -> Outcome {
        let arrival = Arrival {
            flow_port,
            identification,
            vlan_tag,
            ..Arrival::single(packet, self.wire.index("port0"))
        };
        program.judge(&self.node, &arrival)
    }

    /// A peer's frame to the first container that takes the way through the kernel's VXLAN
    /// device, because it has a trailer of the link, which that cuts off.
    fn marker() -> Vec<u8> {
        let mut frame = vxlan_from(PEER, &from_peer(b"marker")).bytes();
        frame.extend([0; 6]);
        frame
    }
}

/// [`two_peers`] with the interfaces of the wire: one peer on either underlay, and a second
/// container.
fn node_of(wire: &Wire) -> Node {
    let mut node = two_peers(wire.index("vxlan100"));
    node.ways = [
        (PEER, "eth0", PEER),
        (OTHER_PEER, "eth1", Ipv4Addr::new(203, 0, 113, 1)),
    ]
    .map(|(address, interface, next_hop)| {
        let way = Way {
            link: wire.index(interface),
            next_hop,
            mtu: 1500,
        };
        (address, way)
    })
    .into();
    node.underlays = ["eth0", "eth1"]
        .map(|name| {
            let link = wire.index(name);
            (UnderlayKey { link }, Underlay::default())
        })
        .into();
    node.links
        .extend(["eth0", "eth1"].map(|name| wire.index(name)));
    for (index, address) in [(0, CONTAINER), (1, SIBLING)] {
        let endpoint = Endpoint {
            link: wire.index(&format!("port{index}")),
            mac: container_mac(index),
            flags: ENDPOINT_HELD,
            identity: 0,
        };
        let address = address.octets();
        let key = MacKey {
            mac: endpoint.mac,
            pad: [0; 2],
        };
        let link = endpoint.link;
        node.endpoints.insert(EndpointKey { address }, endpoint);
        node.macs.insert(key, MacHolder { link });
        node.links.insert(link);
    }
    node
}

fn attach(programs: &mut Programs, program: Program, interface: &str) {
    // Kernels before tcx attach to this queueing discipline.
    qdisc_add_clsact(interface).unwrap();
    let classifier = programs.classifier(program);
    classifier.attach(interface, TcAttachType::Ingress).unwrap();
}

fn is_udp(frame: &[u8]) -> bool {
    Ethernet::read(frame).is_some_and(|it| it.ethertype == 0x0800)
        && Ipv4::read(&frame[14..]).is_some_and(|ip| ip.protocol == 17)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encapsulated_packet_leaves_by_its_peers_link_to_its_next_hop() {
    let on = Attached::new("out").await;
    for (remote, underlay, link, next_hop, macs) in [
        (REMOTE, 0, "eth0", PEER, [NEIGHBOUR_MAC, HOST_MAC]),
        (
            OTHER_REMOTE,
            1,
            "eth1",
            Ipv4Addr::new(203, 0, 113, 1),
            [GATEWAY_NEIGHBOUR_MAC, [0x0e, 0, 0, 0, 1, 2]],
        ),
    ] {
        let mut frame = from_container(b"out");
        frame.ip.destination = remote;
        let sent = frame.bytes();
        // The kernel is asked for the first, and its word taken for those after it.
        let mut identifications = BTreeSet::new();
        for _ in 0..20 {
            on.containers[0].send(&sent);
            let arrived = on.underlays[underlay].receive(is_vxlan);

            let flow_port = Udp::read(&arrived[UDP..]).unwrap().source;
            let outer = Ipv4::read(&arrived[14..]).unwrap();
            identifications.insert(outer.identification);
            let of_kernel = [flow_port, outer.identification];
            let outcome = on.judge_tagged(Program::Encapsulate, &sent, of_kernel, None);
            let link = on.wire.index(link);
            assert_eq!(
                outcome.verdict,
                Verdict::Redirect(Redirect::Neighbour { link, next_hop })
            );
            let mut expected = outcome.packet;
            expected[..6].copy_from_slice(&macs[0]);
            expected[6..12].copy_from_slice(&macs[1]);
            assert_eq!(hex(&arrived), hex(&expected));
        }
        assert_eq!(
            identifications.len(),
            20,
            "each has its own: {identifications:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decapsulated_packet_comes_out_at_its_own_container() {
    let on = Attached::new("in").await;
    for (sender, source, underlay) in [(PEER, REMOTE, 0), (OTHER_PEER, OTHER_REMOTE, 1)] {
        for (container, destination) in [(0, CONTAINER), (1, SIBLING)] {
            let mut frame = from_peer(b"in");
            (frame.ip.source, frame.ip.destination) = (source, destination);
            let sent = vxlan_from(sender, &frame).bytes();
            on.underlays[underlay].send(&sent);
            let arrived = on.containers[container].receive(is_udp);

            let outcome = on.judge(Program::Decapsulate, &sent);
            let link = on.wire.index(&format!("port{container}"));
            let to = Verdict::Redirect(Redirect::Container { link });
            assert_eq!(outcome.verdict, to);
            assert_eq!(hex(&arrived), hex(&outcome.packet));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_sends_in_whatever_disguise_reaches_no_container() {
    let on = Attached::new("stranger").await;
    // A second address on the interface, and those that mean everybody there.
    ip(&on.wire.host, "address add 192.0.2.77/24 dev eth0");
    let forged = || vxlan_from(STRANGER, &from_peer(b"forged"));
    let to = |address: [u8; 4]| {
        let mut frame = forged();
        frame.outer.ip.destination = address.into();
        frame
    };
    let with_options = |words: usize| {
        let mut frame = forged();
        frame.outer.options = vec![1; words * 4];
        frame
    };
    let marked = |mark| {
        let mut frame = forged();
        frame.outer.ip.tos = mark;
        frame
    };
    let mut here = CpuSet::new();
    here.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &here).unwrap();
    for (disguise, frame) in [
        ("none", forged()),
        ("one word of options", with_options(1)),
        ("ten words of options", with_options(10)),
        ("a congestion mark", marked(3)),
        ("another address of the host", to([192, 0, 2, 77])),
        ("an address of the bridge", to([10, 42, 1, 1])),
        ("the other underlay's address", to([203, 0, 113, 2])),
        ("the subnet's broadcast address", to([192, 0, 2, 255])),
        ("the broadcast address", to([255; 4])),
        ("all hosts, multicast", to([224, 0, 0, 1])),
    ] {
        on.underlays[0].send(&frame.bytes());
        // What one CPU sends the same way arrives in order: had the first been let in, by the
        // program or by the kernel, it would come before the second.
        on.underlays[0].send(&Attached::marker());
        let arrived = on.containers[0].receive(is_udp);
        assert!(
            arrived.ends_with(b"marker"),
            "let in with {disguise}: {}",
            hex(&arrived)
        );
    }
    let (counted, _) = on.programs.ledger();
    assert_eq!(counted.drops.unknown_vtep, 8, "{counted:?}");
    assert_eq!(counted.drops.malformed, 2, "{counted:?}");
    assert_eq!(counted.passes.unreadable, 10, "the markers");
}

/// What of a container's frames is dropped, with tags and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_no_vlan_hides_nothing_and_a_stub_teaches_the_bridge_nothing() {
    let mut on = Attached::new("tags").await;
    let advertisement = |mac| {
        Ipv6Frame {
            macs: [[0x33, 0x33, 0, 0, 0, 1], mac],
            extensions: Vec::new(),
            protocol: 58,
            payload: vec![134; 16],
        }
        .bytes()
    };
    let own = container_mac(0);
    let siblings = container_mac(1);
    let claim = ArpFrame {
        macs: [[0xff; 6], own],
        operation: 1,
        sender: (own, GATEWAY),
        target: ([0; 6], SIBLING),
    };
    let answer = Frame::udp([own, [0xff; 6]], [CONTAINER, SIBLING], [67, 68], &[0; 40]);
    let mut stub = from_container(b"");
    stub.ethernet.source = siblings;
    let stub = stub.bytes()[..33].to_vec();
    let (vlan, provider) = (0x8100, 0x88a8);
    let mut ledger = Ledger::default();
    for (frame, tags, verdict) in [
        // A tag with a priority alone.
        (
            advertisement(own),
            vec![(vlan, 0xe000)],
            Verdict::Drop(DropReason::RouterAdvert),
        ),
        (
            claim.bytes(),
            vec![(provider, 0)],
            Verdict::Drop(DropReason::GatewayClaimed),
        ),
        (
            advertisement(own),
            vec![(vlan, 0), (vlan, 7)],
            Verdict::Drop(DropReason::Malformed),
        ),
        (
            advertisement(siblings),
            vec![(vlan, 7)],
            Verdict::Drop(DropReason::SpoofedMac),
        ),
        (stub, vec![], Verdict::Drop(DropReason::SpoofedMac)),
        (
            from_container(b"tagged").bytes(),
            vec![(vlan, 0)],
            Verdict::Pass(PassReason::Unreadable),
        ),
        // A client of DHCP may take the answer for one without a tag.
        (
            answer.bytes(),
            vec![(vlan, 7)],
            Verdict::Drop(DropReason::DhcpAnswer),
        ),
        // A VLAN's own routers are its own business.
        (
            advertisement(own),
            vec![(vlan, 7)],
            Verdict::Pass(PassReason::NotRouted),
        ),
    ] {
        on.containers[0].send(&tagged(&frame, &tags));
        let (taken_off, left) = match tags.split_first() {
            Some((&(_, tag), rest)) => (Some(tag), tagged(&frame, rest)),
            None => (None, frame),
        };
        let outcome = on.judge_tagged(Program::Encapsulate, &left, [0; 2], taken_off);
        assert_eq!(outcome.verdict, verdict, "{tags:?}");
        ledger.add(&outcome);
    }
    // The last one arrives, and by then the others have been judged.
    let is_advertisement = |frame: &[u8]| frame == advertisement(own);
    on.containers[1].receive(is_advertisement);
    let (counted, _) = on.programs.ledger();
    assert_eq!(counted.drops, ledger.drops);

    // Unless the bridge takes tags off: then there is nothing of its own about it.
    on.node.config.flags = CONFIG_GUARD_TAGGED;
    on.programs.show(&on.node);
    let frame = advertisement(own);
    on.containers[0].send(&tagged(&frame, &[(vlan, 7)]));
    let outcome = on.judge_tagged(Program::Encapsulate, &frame, [0; 2], Some(7));
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::RouterAdvert));
    ledger.add(&outcome);
    let mut after = from_container(b"after it").bytes();
    after[..6].copy_from_slice(&siblings);
    on.containers[0].send(&after);
    on.containers[1].receive(|frame| frame == after);
    let (counted, _) = on.programs.ledger();
    assert_eq!(counted.drops, ledger.drops);
}
