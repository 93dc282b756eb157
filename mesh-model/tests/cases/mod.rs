//! Named cases: a node, a packet, and the verdict, for every verdict of every program.

mod decapsulate;
mod encapsulate;
mod guards;
mod overlay;
mod ports;
mod registered;
mod roles;
mod underlay;

use mesh_layout::{DropReason, PassReason};
use mesh_model::{Node, Program, Redirect, Verdict};

use crate::harness::node::{PORT, two_peers};

/// A packet that must come to a known verdict.
pub(crate) struct Case {
    /// What happens, as a sentence.
    pub(crate) name: String,
    pub(crate) program: Program,
    pub(crate) node: Node,
    pub(crate) packet: Vec<u8>,
    /// Index of the interface it arrives on.
    pub(crate) link: u32,
    pub(crate) segment_size: u16,
    pub(crate) claims_anothers: bool,
    pub(crate) verdict: Verdict,
    /// The verdict on the bridge, where the port is not known, if it is another one.
    portless: Option<Verdict>,
    /// Whether the bridge's program is asked as well.
    also_on_the_bridge: bool,
}

/// All cases, on a node whose overlay device is `overlay_link`.
pub(crate) fn all(overlay_link: u32) -> Vec<Case> {
    let mut cases = Vec::new();
    for program in [
        encapsulate::cases,
        ports::cases,
        roles::cases,
        decapsulate::cases,
        guards::cases,
        registered::cases,
        overlay::cases,
    ] {
        program(&mut Cases {
            node: two_peers(overlay_link),
            cases: &mut cases,
        });
    }
    let on_the_bridge: Vec<Case> = cases.iter().filter_map(Case::on_the_bridge).collect();
    cases.extend(on_the_bridge);
    cases
}

impl Case {
    /// The packet of a port that has no program, where the bridge hands it up: it fares as there,
    /// but what is left to the kernel is not counted.
    fn on_the_bridge(&self) -> Option<Self> {
        let asked = self.program == Program::Encapsulate && self.also_on_the_bridge;
        asked.then(|| Self {
            name: format!("{}, from a port without a program", self.name),
            program: Program::CatchAll,
            node: self.node.clone(),
            packet: self.packet.clone(),
            link: self.link,
            segment_size: self.segment_size,
            claims_anothers: false,
            verdict: match self.portless.unwrap_or(self.verdict) {
                Verdict::Pass(_) => Verdict::Continue,
                other => other,
            },
            portless: None,
            also_on_the_bridge: false,
        })
    }
}

/// Collects cases of one program on one node.
pub(crate) struct Cases<'a> {
    node: Node,
    cases: &'a mut Vec<Case>,
}

impl Cases<'_> {
    fn add(&mut self, program: Program, name: &'static str, packet: Vec<u8>, verdict: Verdict) {
        self.cases.push(Case {
            name: name.to_owned(),
            program,
            node: self.node.clone(),
            packet,
            link: PORT,
            segment_size: 0,
            claims_anothers: false,
            verdict,
            portless: None,
            also_on_the_bridge: true,
        });
    }

    /// Says what becomes of the packet of the case that was added last where it is not known by
    /// which port it came.
    fn without_port(&mut self, verdict: Verdict) {
        self.cases.last_mut().unwrap().portless = Some(verdict);
    }

    /// Has the case that was added last tried at the port alone: without its port the packet says nothing.
    fn only_at_port(&mut self) {
        self.cases.last_mut().unwrap().also_on_the_bridge = false;
    }

    /// Changes the node of the case that was added last.
    fn on(&mut self, change: impl FnOnce(&mut Node)) {
        change(&mut self.cases.last_mut().unwrap().node);
    }

    /// Has the packet filter mark the packet of the case that was added last.
    fn claiming_anothers(&mut self) {
        self.cases.last_mut().unwrap().claims_anothers = true;
    }

    /// Makes the packet of the case that was added last one that is still to be segmented.
    fn in_segments_of(&mut self, size: u16) {
        self.cases.last_mut().unwrap().segment_size = size;
    }
}

fn pass(reason: PassReason) -> Verdict {
    Verdict::Pass(reason)
}

fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

/// To the container of the node.
fn delivered() -> Verdict {
    Verdict::Redirect(Redirect::Container { link: PORT })
}

/// Inserts IPv4 options, all no-operations, into the header at `ip`.
fn with_options(mut packet: Vec<u8>, ip: usize, words: usize) -> Vec<u8> {
    packet.splice(ip + 20..ip + 20, std::iter::repeat_n(1, words * 4));
    packet[ip] += u8::try_from(words).unwrap();
    packet
}

/// Overwrites bytes.
fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}
