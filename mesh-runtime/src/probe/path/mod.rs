//! Asks along the way to one peer or address, by every way there is: as containers send, from the node's own endpoint for
//! probes; by the kernel path, from the host itself; and the peer's host on the underlay.
//!
//! [`target`] tells whom a caller means, [`echo`] asks, [`witness`] tells which path carried a packet, [`refusals`]
//! hears whether the port of VXLAN is served, [`search`] finds the largest packet that passes, [`questions`] are what is asked, [`ask`] puts them together, [`seen`] is what came of it, and [`judge`] what is wrong. [`run`] is what callers ask for.

pub(crate) mod ask;
pub(crate) mod echo;
pub(crate) mod judge;
pub(crate) mod questions;
pub(crate) mod refusals;
pub(crate) mod run;
mod search;
pub(crate) mod seen;
pub(crate) mod target;
pub(crate) mod witness;

use std::{net::Ipv4Addr, time::Duration};

use mesh_problems::Problem;

use super::OpenProbeSocket;
use echo::OpenEcho;
use judge::PeerFacts;
use refusals::Refusals;
use seen::{HostSeen, Leg};
use target::Subject;
use witness::Witness;

/// What the reconciler knows before anybody is asked, with what is asked over.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) subject: Subject,
    /// `None` for an address of this node.
    pub(crate) peer: Option<PeerFacts>,
    /// Where questions come from that go as a container's.
    pub(crate) source: Ipv4Addr,
    /// MTU of the overlay.
    pub(crate) mtu: u32,
    /// Why this node has no endpoint for probes.
    pub(crate) no_endpoint: Option<String>,
    pub(crate) sockets: OpenSockets,
}

/// What is asked over, or why not.
pub(crate) struct OpenSockets {
    /// From the endpoint for probes.
    pub(crate) container: Result<OpenEcho, String>,
    /// Of what is sent from there.
    pub(crate) witness: Option<Witness>,
    /// From this host, over the VXLAN device, or for an address of this node over the bridge.
    pub(crate) kernel: Result<OpenEcho, String>,
    /// To the peer's host.
    pub(crate) host: Result<OpenEcho, String>,
    /// To its port for VXLAN.
    pub(crate) port: Result<OpenProbeSocket, String>,
    /// What it says of that port, whoever asks.
    pub(crate) refusals: Option<Refusals>,
}

impl std::fmt::Debug for OpenSockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenSockets").finish_non_exhaustive()
    }
}

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// How long each answer is waited for.
    pub(crate) timeout: Duration,
    /// Whether the largest packets are looked for.
    pub(crate) search: bool,
}

/// What is known of a way.
#[derive(Clone, Debug)]
pub(crate) struct PathResult {
    pub(crate) subject: Subject,
    pub(crate) peer: Option<PeerFacts>,
    pub(crate) source: Ipv4Addr,
    pub(crate) mtu: u32,
    pub(crate) container: Leg,
    pub(crate) kernel: Leg,
    pub(crate) host: HostSeen,
    pub(crate) findings: Vec<Problem>,
}
