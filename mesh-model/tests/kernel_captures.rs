//! What the kernel's own VXLAN device writes, and whether both paths speak the same format.
//! Needs root and iproute2.
//!
//! `tests/fixtures/*.hex` hold frames that went into a host's bridge and came out of its
//! underlay interface through the kernel's VXLAN device, with no program attached. The host
//! is that of `tests/wire`. They were written by the first test of this file, which captures
//! them anew each time and compares, with
//! `QUILT_MESH_WRITE_FIXTURES=1 cargo test -p mesh-model --test kernel_captures`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{fmt::Write as _, path::PathBuf};

use mesh_layout::{DropReason, PassReason};
use mesh_model::{
    Arrival, Ethernet, Frame, Ipv4, Node, Program, Redirect, SOURCE_PORTS, Udp, Verdict,
    header_checksum,
};

mod harness;
mod wire;

use harness::{
    Ground, OVERLAY_MTU, Programs, compare, hex, ip,
    node::{PORT, REMOTE, from_container, the_peers_node, two_peers},
};
use wire::{HOST_MAC, NEIGHBOUR_MAC, PacketSocket, Wire, is_vxlan};

/// Where a frame's headers begin.
const IP: usize = 14;
const UDP: usize = 34;
const VXLAN: usize = 42;

/// What containers send: a name, and the frame.
fn sent() -> Vec<(&'static str, Frame)> {
    let with = |data: &[u8], change: &dyn Fn(&mut Frame)| {
        let mut frame = from_container(data);
        change(&mut frame);
        frame
    };
    let echo_request = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    // Ports 4444 and 7777, SYN, header of six words with an MSS of 1410.
    let syn = [
        0x11, 0x5c, 0x1e, 0x61, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0, 2, 4,
        5, 0x82,
    ];
    vec![
        (
            "udp",
            from_container(b"sixty-four bytes are a small packet"),
        ),
        ("udp_empty", from_container(b"")),
        (
            "udp_largest",
            from_container(&[0x55; OVERLAY_MTU as usize - 28]),
        ),
        (
            "icmp_echo",
            with(b"", &|frame| {
                frame.ip.protocol = 1;
                frame.payload = echo_request.to_vec();
            }),
        ),
        (
            "tcp_syn_dont_fragment",
            with(b"", &|frame| {
                frame.ip.protocol = 6;
                frame.ip.dont_fragment = true;
                frame.payload = syn.to_vec();
            }),
        ),
        ("marked_ect1", with(b"ect1", &|frame| frame.ip.tos = 0b01)),
        (
            "marked_ect0_dscp",
            with(b"ect0", &|frame| frame.ip.tos = 0xb8 | 0b10),
        ),
        ("marked_ce", with(b"ce", &|frame| frame.ip.tos = 0b11)),
        (
            "inner_fragment",
            with(b"fragment", &|frame| frame.ip.more_fragments = true),
        ),
        ("short_life", with(b"ttl", &|frame| frame.ip.ttl = 3)),
    ]
}

/// A frame that went in and the frame that came out.
#[derive(Debug, PartialEq, Eq)]
struct Capture {
    sent: Vec<u8>,
    encapsulated: Vec<u8>,
}

impl Capture {
    fn path(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(format!("kernel_vxlan_{name}.hex"))
    }

    fn read(name: &str) -> Self {
        let path = Self::path(name);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut frames = text.split("\n\n").map(|paragraph| {
            let digits: String = paragraph
                .lines()
                .filter(|line| !line.starts_with('#'))
                .flat_map(str::split_whitespace)
                .collect();
            (0..digits.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
                .collect()
        });
        Self {
            sent: frames.next().unwrap(),
            encapsulated: frames.next().unwrap(),
        }
    }

    fn write(&self, name: &str) {
        let mut text = format!(
            "# What a container sent ({name}); see tests/kernel_captures.rs for how it was captured.\n"
        );
        text += &lines(&self.sent);
        text +=
            "\n# What the kernel's VXLAN device made of it, as it left the underlay interface.\n";
        text += &lines(&self.encapsulated);
        std::fs::write(Self::path(name), text).unwrap();
    }
}

fn lines(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut text, line| {
        let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{}", digits.join(" "));
        text
    })
}

/// What the specification leaves to each sender, set to nothing: identification, its
/// checksum's share, and source port.
fn without_choices(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[IP + 4..IP + 6].fill(0);
    frame[IP + 10..IP + 12].fill(0);
    frame[UDP..UDP + 2].fill(0);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_vxlan_device_still_writes_what_the_fixtures_hold() {
    let wire = Wire::new("captures").await;
    let container = PacketSocket::open(&wire.containers, "eth0");
    let underlay = PacketSocket::open(&wire.world, "eth0");
    for (name, frame) in sent() {
        let sent = frame.bytes();
        container.send(&sent);
        let capture = Capture {
            encapsulated: underlay.receive(is_vxlan),
            sent,
        };
        if std::env::var_os("QUILT_MESH_WRITE_FIXTURES").is_some() {
            capture.write(name);
        }
        let fixture = Capture::read(name);
        assert_eq!(capture.sent, fixture.sent, "{name}");
        assert_eq!(
            hex(&without_choices(&capture.encapsulated)),
            hex(&without_choices(&fixture.encapsulated)),
            "{name}"
        );
    }
}

#[test]
fn both_paths_write_the_same_format_but_for_what_is_documented() {
    for (name, _) in sent() {
        let Capture {
            sent,
            encapsulated: kernels,
        } = Capture::read(name);
        let flow_port = Udp::read(&kernels[UDP..]).unwrap().source;
        let kernel_ip = Ipv4::read(&kernels[IP..]).unwrap();
        let arrival = Arrival {
            flow_port,
            identification: kernel_ip.identification,
            ..Arrival::single(&sent, PORT)
        };
        let ours = Program::Encapsulate.judge(&two_peers(2), &arrival).packet;

        // The outer Ethernet header, which the kernel writes in both cases, after our program.
        let expected = Ethernet {
            destination: NEIGHBOUR_MAC,
            source: HOST_MAC,
            ethertype: 0x0800,
        };
        assert_eq!(Ethernet::read(&kernels), Some(expected), "{name}");

        // Outer IPv4: it may be fragmented, and its identification counts, of either path by itself; the
        // kernel's was given to our model.
        assert_eq!(Ipv4::read(&ours[IP..]), Some(kernel_ip), "{name}");
        for frame in [&ours, &kernels] {
            assert_eq!(header_checksum(&frame[IP..UDP]), 0, "{name}");
        }

        // UDP: the kernel's source port is a hash too, in a range of its own
        // (net.ipv4.ip_local_port_range); here it was given to our model as well.
        assert!(
            (32_768..=60_999).contains(&flow_port),
            "{name}: {flow_port}"
        );

        // From there on, every byte: lengths, checksum 0, VXLAN, both inner headers, data.
        assert_eq!(hex(&ours[UDP..]), hex(&kernels[UDP..]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_agree_with_the_model_on_what_the_kernel_sent() {
    let ground = Ground::new("captured").await;
    let (here, there) = (
        two_peers(ground.overlay_link),
        the_peers_node(ground.overlay_link),
    );
    ground
        .namespace
        .run(|| {
            let mut programs = Programs::load();
            for (name, _) in sent() {
                let capture = Capture::read(name);
                let mut judge = |program, node: &Node, packet: &[u8]| {
                    programs.show(node);
                    let arrival = Arrival::single(packet, PORT);
                    let (outcome, difference) = compare(&mut programs, program, node, &arrival);
                    assert_eq!(difference, None, "{name}");
                    outcome
                };
                let out = judge(Program::Encapsulate, &here, &capture.sent);
                assert!(matches!(out.verdict, Verdict::Redirect(_)), "{name}");
                let ours = judge(Program::Decapsulate, &there, &out.packet);
                let kernels = judge(Program::Decapsulate, &there, &capture.encapsulated);
                assert_eq!(
                    kernels.verdict,
                    Verdict::Redirect(Redirect::Container { link: PORT }),
                    "{name}"
                );
                assert_eq!(hex(&kernels.packet), hex(&ours.packet), "{name}");

                // Its receiver's guards see it as what it is.
                let strangers = judge(Program::Decapsulate, &here, &capture.encapsulated);
                assert_eq!(
                    strangers.verdict,
                    Verdict::Pass(PassReason::NotVxlan),
                    "{name}"
                );
                let mut unknown = there.clone();
                unknown.peers.clear();
                unknown.vteps.clear();
                let unknown = judge(Program::Decapsulate, &unknown, &capture.encapsulated);
                assert_eq!(
                    unknown.verdict,
                    Verdict::Drop(DropReason::UnknownVtep),
                    "{name}"
                );
            }
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kernel_with_outer_checksums_sends_is_left_to_the_kernel_to_verify() {
    let wire = Wire::new("checksums").await;
    ip(&wire.host, "link delete vxlan100");
    wire.add_overlay("udpcsum");
    let container = PacketSocket::open(&wire.containers, "eth0");
    let underlay = PacketSocket::open(&wire.world, "eth0");
    container.send(&from_container(b"summed").bytes());
    let frame = underlay.receive(is_vxlan);
    assert_ne!(Udp::read(&frame[UDP..]).unwrap().checksum, 0);

    let node = the_peers_node(2);
    let outcome = Program::Decapsulate.judge(&node, &Arrival::single(&frame, 2));
    assert_eq!(outcome.verdict, Verdict::Pass(PassReason::OuterChecksum));
    assert_eq!(frame[VXLAN], 0x08);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_keeps_its_source_port_and_flows_differ() {
    let ground = Ground::new("flows").await;
    let node = two_peers(ground.overlay_link);
    let ports = ground
        .namespace
        .run(|| {
            let mut programs = Programs::load();
            programs.show(&node);
            let mut port = |from: u16, data: &[u8]| {
                let frame = Frame::udp(
                    [harness::node::CONTAINER_MAC, harness::node::GATEWAY_MAC],
                    [harness::node::CONTAINER, REMOTE],
                    [from, 7777],
                    data,
                )
                .bytes();
                let arrival = Arrival::single(&frame, PORT);
                let ran = programs.run(Program::Encapsulate, &arrival);
                Udp::read(&ran.packet[UDP..]).unwrap().source
            };
            (0..200)
                .map(|from| {
                    let ports = [port(from, b"a"), port(from, b"another packet")];
                    assert_eq!(ports[0], ports[1], "flow {from}");
                    ports[0]
                })
                .collect::<std::collections::BTreeSet<_>>()
        })
        .unwrap();
    assert!(ports.iter().all(|port| SOURCE_PORTS.contains(port)));
    // 200 flows over 16,384 ports: one or two meet.
    assert!(ports.len() > 180, "{} ports for 200 flows", ports.len());
}
