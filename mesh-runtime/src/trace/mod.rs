//! What would become of a packet on this node, hop by hop, without sending it.
//!
//! [`look`] reads what maps, hooks, routes, neighbours, forwarding entries and rules hold at that moment
//! (`gather`), and goes the packet's way by them (`walk`, pure): what our programs do is asked of
//! their specification (`mesh-model`), to which tests hold them; where a packet is routed is asked of
//! the kernel. What somebody else's rule or program does is for nobody here to say: it is named, and
//! not evaluated.

mod containers;
mod facts;
mod gather;
mod hosts;
mod overlay;
mod party;
mod route;
mod rules;

mod walk;

use std::{collections::BTreeMap, io, net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;

pub(crate) use facts::Facts;

/// What is asked: what becomes of the first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who sends it.
    pub source: Ipv4Addr,
    /// Whom it is for.
    pub destination: Ipv4Addr,
    /// What it is.
    pub protocol: Protocol,
    /// The port that it is for; 0 for none, and for ICMP.
    pub port: u16,
    /// Its length from the IPv4 header on, in bytes.
    pub length: u32,
    /// Whether a router may cut it up. TCP says no, and most others.
    pub may_be_fragmented: bool,
    /// The interface by which it comes; empty for where its sender is known to be.
    pub from_interface: String,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// An echo request.
    Icmp,
    /// A connection's first segment.
    Tcp,
    /// A datagram.
    Udp,
}

impl Protocol {
    /// The protocol's number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// What the node is, as whoever runs it knows.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The cluster's network.
    pub cluster: Ipv4Net,
    /// This node's subnet.
    pub subnet: Ipv4Net,
    /// This node's underlay address.
    pub host_address: Ipv4Addr,
    /// The other nodes, by subnet: underlay address and host's name.
    pub peers: BTreeMap<Ipv4Net, (Ipv4Addr, String)>,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the VXLAN device.
    pub overlay: String,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Networks whose packets are routed into containers.
    pub routed_from: Vec<Ipv4Net>,
    /// Whether containers go out under the host's address.
    pub masquerade: bool,
    /// Where the maps are pinned.
    pub bpffs: PathBuf,
    /// How many rules our tables were written with; `None` where that is not known.
    pub rules: Option<usize>,
}

/// What becomes of the packet at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Passes,
    /// It ends here.
    Drops,
    /// Somebody else decides, or it is not known here.
    NotEvaluated,
    /// It is on another node.
    Elsewhere,
}

/// A place by which the packet comes, and what is decided there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where.
    pub place: String,
    /// What is decided.
    pub decision: String,
    /// By what: entries of maps, routes, names of tables.
    pub evidence: Vec<String>,
    /// What becomes of the packet.
    pub verdict: Verdict,
}

/// The packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Place by place.
    pub hops: Vec<Hop>,
    /// Which path carries it between the nodes: "fast", "kernel", or nothing where it does not leave the node.
    pub path: &'static str,
    /// The other node, if it goes on or came from there: its host's name, or else its underlay address.
    pub other_node: String,
}

impl Trace {
    /// What becomes of the packet on this node, as far as it can be told.
    pub fn verdict(&self) -> Verdict {
        let any = |verdict| self.hops.iter().any(|hop| hop.verdict == verdict);
        if any(Verdict::Drops) {
            // Whoever may drop it before makes no difference.
            Verdict::Drops
        } else if any(Verdict::NotEvaluated) {
            Verdict::NotEvaluated
        } else {
            Verdict::Passes
        }
    }
}

/// Looks what the kernel has, and says what would become of the packet. It blocks, for milliseconds, and looks at the
/// network namespace of the calling thread.
///
/// # Errors
///
/// A kernel that does not answer, or maps that cannot be read.
pub fn look(ground: &Ground, question: &Question) -> io::Result<Trace> {
    Ok(walk::walk(&gather::gather(ground, question)?))
}
