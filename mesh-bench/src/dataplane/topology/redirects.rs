//! Bare redirects: what two programs on the same pairs of veth could reach at best. They look at an address, encapsulate
//! nothing, and ask no map.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, ensure};
use mesh_testbed::{Container, Host, Links, NetNs};
use rtnetlink::packet_route::neighbour::NeighbourState;

use super::cable::UNDERLAY;
use crate::dataplane::topology::flannel::End;

/// `struct bpf_insn` (linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination and, in the upper four bits, source.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const LOAD_HALF: u8 = 0x69;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const ADD_NUMBER: u8 = 0x07;
const JUMP_IF_GREATER: u8 = 0x2d;
/// With 32 bits of both.
const JUMP_IF_NOT: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// `bpf_redirect` and `bpf_redirect_peer`.
const REDIRECT: i32 = 23;
const REDIRECT_PEER: i32 = 155;
/// The next program, or the kernel.
const TCX_NEXT: i32 = -1;

/// Where `struct __sk_buff` has the packet's beginning and end.
const DATA: i16 = 76;
const DATA_END: i16 = 80;
/// Ethernet header and IPv4 header.
const HEADERS: i32 = 34;
const ETHERTYPE: i16 = 12;
const DESTINATION: i16 = 30;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

/// A program that redirects IPv4 packets for some addresses to an interface each, and leaves all others to the kernel.
fn program(helper: i32, targets: &[(Ipv4Addr, u32)]) -> Vec<Instruction> {
    // A target takes five instructions, the last answer two.
    let past = |instructions: usize| i16::try_from(instructions).unwrap_or(i16::MAX);
    let rest = targets.len() * 5;
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, DATA, 0),
        instruction(LOAD_WORD, 3, 1, DATA_END, 0),
        instruction(MOVE, 4, 2, 0, 0),
        instruction(ADD_NUMBER, 4, 0, 0, HEADERS),
        instruction(JUMP_IF_GREATER, 4, 3, past(rest + 3), 0),
        instruction(LOAD_HALF, 5, 2, ETHERTYPE, 0),
        instruction(
            JUMP_IF_NOT,
            5,
            0,
            past(rest + 1),
            i32::from(0x0800_u16.to_be()),
        ),
        instruction(LOAD_WORD, 6, 2, DESTINATION, 0),
    ];
    for (address, link) in targets {
        let address = u32::from_ne_bytes(address.octets()).cast_signed();
        code.extend([
            instruction(JUMP_IF_NOT, 6, 0, 4, address),
            instruction(MOVE_NUMBER, 1, 0, 0, link.cast_signed()),
            instruction(MOVE_NUMBER, 2, 0, 0, 0),
            instruction(CALL, 0, 0, 0, helper),
            instruction(EXIT, 0, 0, 0, 0),
        ]);
    }
    code.extend([
        instruction(MOVE_NUMBER, 0, 0, 0, TCX_NEXT),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    code
}

/// `union bpf_attr` for the commands below, as far as they use it.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new(fields: &[(usize, &[u8])]) -> Self {
        let mut bytes = [0; 128];
        for (at, value) in fields {
            bytes[*at..*at + value.len()].copy_from_slice(value);
        }
        Self(bytes)
    }
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;

fn bpf(command: libc::c_long, attributes: &Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are as long as said, and what they point to outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.0.as_ptr(),
            attributes.0.len(),
        )
    };
    let descriptor = i32::try_from(answer).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands answer with a new descriptor that is the caller's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Attaches a program to what arrives on an interface of this thread's network namespace, for as long as the
/// descriptor is open.
fn attach(code: &[Instruction], link: u32) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;

    let count = u32::try_from(code.len()).map_err(io::Error::other)?;
    let licence = c"Dual MIT/GPL";
    let load = Attributes::new(&[
        (0, &BPF_PROG_TYPE_SCHED_CLS.to_ne_bytes()),
        (4, &count.to_ne_bytes()),
        (8, &(code.as_ptr() as u64).to_ne_bytes()),
        (16, &(licence.as_ptr() as u64).to_ne_bytes()),
    ]);
    let program = bpf(BPF_PROG_LOAD, &load)?;
    let link = Attributes::new(&[
        (0, &program.as_raw_fd().to_ne_bytes()),
        (4, &link.to_ne_bytes()),
        (8, &BPF_TCX_INGRESS.to_ne_bytes()),
    ]);
    bpf(BPF_LINK_CREATE, &link)
}

/// Attaches programs on both hosts that redirect what the containers of each pair send to each other. They stay for as
/// long as the descriptors are open.
pub(crate) async fn attach_pairs(
    ends: [End<'_>; 2],
    pairs: &[(Container, Container)],
) -> anyhow::Result<Vec<OwnedFd>> {
    let mut attached = Vec::new();
    for (own, containers) in [
        (
            ends[0],
            pairs.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>(),
        ),
        (
            ends[1],
            pairs.iter().map(|(a, b)| (b, a)).collect::<Vec<_>>(),
        ),
    ] {
        let links = Links::of(own.host.netns())?;
        let underlay = index(&links, own.host, UNDERLAY).await?;
        let mut arriving = Vec::new();
        for (container, other) in containers {
            let port = index(&links, own.host, container.host_interface()).await?;
            arriving.push((container.address(), port));
            let code = program(REDIRECT, &[(other.address(), underlay)]);
            attached.push(own.host.netns().run(|| attach(&code, port))??);
            send_to_mac_of(container, own, other.netns()).await?;
        }
        let code = program(REDIRECT_PEER, &arriving);
        attached.push(own.host.netns().run(|| attach(&code, underlay))??);
    }
    Ok(attached)
}

async fn index(links: &Links, host: &Host, interface: &str) -> anyhow::Result<u32> {
    let index = links.index(interface).await?;
    index.with_context(|| format!("{} has no {interface}", host.name()))
}

/// Has a container take the other's MAC address for its gateway's, so that nobody has to write it on the way.
async fn send_to_mac_of(container: &Container, own: End<'_>, other: &NetNs) -> anyhow::Result<()> {
    let gateway = own
        .subnet
        .hosts()
        .next()
        .context("a subnet without addresses")?;
    let mac = other.run(|| std::fs::read_to_string("/sys/class/net/eth0/address"));
    let mac = mac?.context("the other container has no eth0")?;
    let mac: Vec<u8> = mac
        .trim()
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    ensure!(mac.len() == 6, "eth0 has no MAC address");
    let inside = Links::of(container.netns())?;
    let eth0 = inside
        .index("eth0")
        .await?
        .context("a container without eth0")?;
    let netlink = container.netns().netlink()?;
    netlink
        .neighbours()
        .add(eth0, gateway.into())
        .state(NeighbourState::Permanent)
        .link_layer_address(&mac)
        .replace()
        .execute()
        .await
        .context("cannot set a container's neighbour")
}
