//! The eBPF fast path: its maps, programs and attachments in the kernel.
//!
//! All calls are blocking, and each is a handful of system calls that take microseconds.

mod state;

pub use state::{
    Device, EndpointPath, FastPathChanges, FastPathReport, FastPathState, Mac, PeerCounters,
    PeerPath,
};

use std::{collections::BTreeMap, path::PathBuf};

use ipnet::Ipv4Net;

/// How the fast path is opened.
#[derive(Clone, Debug)]
pub struct FastPathOptions {
    /// Mount point of the BPF file system; maps and links are pinned in `quilt-mesh/` below.
    pub bpffs: PathBuf,
    /// Capacity of the peer maps: how many subnets the cluster has.
    pub max_peers: u32,
    /// How programs are attached.
    pub attach: AttachMode,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// tcx where the kernel has it (6.6), clsact elsewhere.
    #[default]
    Auto,
    /// tcx links only.
    Tcx,
    /// clsact filters only.
    Clsact,
}

/// The loaded programs and maps.
#[derive(Debug)]
pub struct FastPath {}

/// What can go wrong with the fast path.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// To be replaced.
    #[error("the fast path is not there yet")]
    NotThere,
}

impl FastPath {
    /// Mounts bpffs if it is not there, loads the programs and opens or creates the pinned maps.
    pub fn open(_options: FastPathOptions) -> Result<Self, FastPathError> {
        Err(FastPathError::NotThere)
    }

    /// Makes maps and attachments show `wanted`.
    pub fn apply(&mut self, _wanted: &FastPathState) -> Result<FastPathChanges, FastPathError> {
        Err(FastPathError::NotThere)
    }

    /// Detaches every program, transmit first, and forgets nothing else: the maps stay.
    pub fn detach(&mut self) -> Result<(), FastPathError> {
        Err(FastPathError::NotThere)
    }

    /// Counters of every peer in the map, by subnet.
    pub fn peer_counters(&self) -> Result<BTreeMap<Ipv4Net, PeerCounters>, FastPathError> {
        Err(FastPathError::NotThere)
    }

    /// State, drops and passes.
    pub fn report(&self) -> Result<FastPathReport, FastPathError> {
        Err(FastPathError::NotThere)
    }
}
