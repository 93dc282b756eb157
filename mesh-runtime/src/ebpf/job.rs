//! Attaching, apart from the maps: it waits for the kernel, and nothing else should.
//!
//! The kernel lets a grace period pass for every program that it attaches (`tcx_entry_sync`,
//! commit e420bed02507), which takes it 5 to 15 ms: for 50 ports that appear at once half a
//! second, in which the bridge's own program has their packets.

use std::collections::{BTreeMap, BTreeSet};

use super::{FastPathError, Programs, attach::Attaching, hook::Hook, sequence};

/// What is to be attached where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks(pub(super) BTreeMap<Hook, String>);

impl Hooks {
    /// Whether any of them is at that interface.
    pub fn include(&self, link: u32) -> bool {
        self.0.keys().any(|hook| hook.link == link)
    }
}

/// Programs on their way to being attached. Dropping it leaves what is attached as it is.
pub struct AttachJob {
    pub(super) programs: Programs,
    pub(super) wanted: Hooks,
    /// Whether to ask the kernel for what is attached already.
    pub(super) look: bool,
}

/// A job that is done, to be handed back to where it came from.
pub struct AttachDone {
    pub(super) programs: Programs,
    pub(super) outcome: AttachOutcome,
}

/// What a job has done.
#[derive(Debug)]
pub struct AttachOutcome {
    /// What it was to attach.
    pub wanted: Hooks,
    /// Programs attached or attached anew.
    pub attached: u32,
    /// Programs detached.
    pub detached: u32,
    /// Interfaces at which something of it is not in place.
    pub missing: BTreeSet<u32>,
    /// Whether everything that receives is in place. Otherwise nothing transmits.
    pub whole: bool,
    /// What failed first.
    pub failure: Option<FastPathError>,
}

impl AttachJob {
    /// Attaches and detaches: blocking, and with the network namespace of the calling thread.
    pub fn run(mut self) -> AttachDone {
        let Programs { ebpf, attachments } = &mut self.programs;
        let outcome = sequence::show(
            &mut Attaching {
                attachments: &mut *attachments,
                ebpf,
            },
            &self.wanted.0,
            self.look,
        );
        let missing = attachments.missing(&self.wanted.0);
        let stale = attachments.remove_stale_pins();
        attachments.remove_stale_filters(&self.wanted.0, outcome.whole);
        AttachDone {
            programs: self.programs,
            outcome: AttachOutcome {
                wanted: self.wanted,
                missing,
                attached: outcome.attached,
                detached: outcome.detached,
                whole: outcome.whole,
                failure: outcome.failures.into_iter().next().or(stale.err()),
            },
        }
    }
}
