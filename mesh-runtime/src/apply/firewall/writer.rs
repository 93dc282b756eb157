//! Makes the kernel show the rules.

use std::time::Instant;

use super::{
    TABLE, connections,
    counters::Reading,
    fingerprint::{Fingerprint, tables_exist},
    loopback::Loopback,
    netlink::PacketFilter,
    nft::{self, NftError},
};
use crate::desired::firewall::Ruleset;

/// What the rules are to be.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) ruleset: Ruleset,
    /// Whether nft may run, which takes a tenth of a second of a processor.
    pub(crate) may_run: bool,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The kernel shows the rules.
    InPlace,
    /// They were written, by running nft.
    Written,
    /// They differ, but it is too early to run nft.
    Early,
    /// They were written, and somebody has changed them since.
    Overtaken,
}

/// Writes the rules, and remembers how to tell that they are as they were written. All calls
/// block, and act on the network namespace of the calling thread.
#[derive(Debug)]
pub(crate) struct Writer {
    written: Option<Written>,
    counters: Reading,
    loopback: Loopback,
}

#[derive(Debug)]
struct Written {
    ruleset: Ruleset,
    fingerprint: Fingerprint,
}

impl Writer {
    /// After an earlier run, at whose end ports were `published` or not.
    pub(crate) fn after(published: bool) -> Self {
        Self {
            written: None,
            counters: Reading::default(),
            loopback: Loopback::after(published),
        }
    }

    /// The rules that were written last, and not seen changed since.
    pub(crate) fn written(&self) -> Option<&Ruleset> {
        self.written.as_ref().map(|written| &written.ruleset)
    }

    /// The counters as they were when the rules were last looked at.
    pub(crate) fn counters(&self) -> &Reading {
        &self.counters
    }

    /// Reads the counters, and says whether nobody has changed any rules since these were written: a few system
    /// calls. If not, or if that cannot be told, they are to be looked at.
    pub(crate) fn glance(&mut self) -> bool {
        let Some(written) = &self.written else {
            return false;
        };
        let Ok(reader) = PacketFilter::open() else {
            return false;
        };
        self.counters = reader.counters().unwrap_or_default();
        let stand = written.fingerprint.is_newest(&reader);
        if stand {
            self.loopback.follow(&written.ruleset);
        }
        stand
    }

    /// Has our bridge route loopback where the rules that stand ask for it and it does not, as one that was made anew.
    /// One system call where nothing is to be done.
    pub(crate) fn hold_loopback(&mut self) {
        let written = self.written.as_ref();
        if written.is_some_and(|written| self.loopback.is_behind(&written.ruleset)) {
            // Of rules that may have changed, the next turn finds out.
            self.glance();
        }
    }

    /// Looks at the kernel's rules, and writes them where they are not what is wanted.
    ///
    /// # Errors
    ///
    /// No nft, or one that refuses; rules that cannot be read.
    pub(crate) fn turn(&mut self, wanted: &Wanted) -> Result<Outcome, NftError> {
        let outcome = self.show(wanted);
        match &outcome {
            Ok(Outcome::InPlace | Outcome::Written) => self.loopback.follow(&wanted.ruleset),
            // What was there before stands, or was damaged.
            Ok(Outcome::Early) => {}
            Ok(Outcome::Overtaken) | Err(_) => self.loopback.close(&wanted.ruleset),
        }
        outcome
    }

    fn show(&mut self, wanted: &Wanted) -> Result<Outcome, NftError> {
        let reader = PacketFilter::open().map_err(NftError::Read)?;
        let mut damaged = false;
        if let Some(written) = &mut self.written {
            // A table that is gone has counted nothing.
            self.counters = reader.counters().unwrap_or_default();
            damaged = !written.fingerprint.holds(&reader).map_err(NftError::Read)?;
            if !damaged && written.ruleset == wanted.ruleset {
                return Ok(Outcome::InPlace);
            }
        }
        // What an earlier run has written is as good as it was until all is written anew.
        if damaged || self.written.is_none() && !tables_exist().map_err(NftError::Read)? {
            self.loopback.close(&wanted.ruleset);
        }
        let mut changes = match &self.written {
            Some(written) if !damaged => wanted.ruleset.since(&written.ruleset),
            _ => None,
        };
        if changes.is_none() && !wanted.may_run {
            return Ok(Outcome::Early);
        }
        // Not known again until all has worked.
        let before = self.written.take();
        let changed_publications = wanted
            .ruleset
            .changed_publications(before.as_ref().map(|written| &written.ruleset));
        let started = Instant::now();
        if let Some(elements) = &changes
            && let Err(error) = reader.change(elements)
        {
            // Somebody was quicker, and the sets are not what they were.
            tracing::debug!(name: "cannot-change-packet-filter-sets", %error, "cannot change the packet filter's sets: writing all anew");
            changes = None;
            if !wanted.may_run {
                return Ok(Outcome::Early);
            }
        }
        if changes.is_none() {
            nft::run(&wanted.ruleset.text())?;
        }
        let took_ms = started.elapsed().as_millis();
        let only = match (&before, &changes) {
            (Some(before), Some(changes)) => before.fingerprint.after(&reader, changes),
            _ => Ok(None),
        };
        let fingerprint = match only.map_err(NftError::Read)? {
            Some(fingerprint) => fingerprint,
            None => {
                let read = Fingerprint::read(&reader).map_err(NftError::Read)?;
                if !read.is_of(&wanted.ruleset.content()) {
                    return Ok(Outcome::Overtaken);
                }
                read
            }
        };
        if !changed_publications.is_empty() {
            match connections::forget(&reader, &wanted.ruleset, &changed_publications) {
                Ok(flows) => {
                    tracing::debug!(name: "flows-published-ports-begin-anew", flows, "flows to published ports begin anew")
                }
                Err(error) => tracing::warn!(name: "flows-not-forgotten",
                    %error,
                    "cannot have the kernel forget flows to published ports: clients that never pause \
                     reach what was there before; conntrack -D -p udp ends them"
                ),
            }
        }
        self.written = Some(Written {
            ruleset: wanted.ruleset.clone(),
            fingerprint,
        });
        let peers = wanted.ruleset.peers();
        match (damaged, changes.is_some()) {
            (true, _) => tracing::warn!(name: "somebody-changed-packet-filter-tables",
                peers,
                took_ms,
                "somebody changed the packet filter's tables named {TABLE}: written anew"
            ),
            (_, false) => {
                tracing::info!(name: "packet-filter-rules-written", peers, took_ms, "packet filter's rules written")
            }
            (_, true) => {
                tracing::debug!(name: "packet-filter-sets-changed", peers, took_ms, "packet filter's sets changed")
            }
        }
        Ok(match changes {
            Some(_) => Outcome::InPlace,
            None => Outcome::Written,
        })
    }
}

/// Removes both tables, and says whether there were any.
///
/// # Errors
///
/// As [`Writer::turn`].
pub(crate) fn remove() -> Result<bool, NftError> {
    if !tables_exist().map_err(NftError::Read)? {
        return Ok(false);
    }
    let gone = |family: &str| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n");
    nft::run(&(gone("inet") + &gone("bridge")))?;
    Ok(true)
}
