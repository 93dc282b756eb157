//! Makes the kernel show the rules.

use std::time::Instant;

use super::{
    TABLE,
    nft::{self, NftError},
    ruleset::Ruleset,
    shown::{Fingerprint, Reader, tables_exist},
};

/// What the rules are to be.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) ruleset: Ruleset,
    /// Whether the rules may be written now, if only they differ from what was wanted before.
    pub(crate) may_write: bool,
    /// Whether they may be written now, if somebody has changed them.
    pub(crate) may_repair: bool,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The kernel shows the rules.
    InPlace,
    /// They were written.
    Written,
    /// Somebody had changed them, and they were written anew.
    Repaired,
    /// They differ, but it is too early to write them.
    Early,
}

/// Writes the rules, and remembers how to tell that they are as they were written. All calls
/// block, and act on the network namespace of the calling thread.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Whether the kernel can tell the bridge of a port; taken as true until it refuses.
    by_bridge: bool,
    written: Option<Written>,
}

#[derive(Debug)]
struct Written {
    ruleset: Ruleset,
    fingerprint: Fingerprint,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            by_bridge: true,
            written: None,
        }
    }
}

impl Writer {
    /// The rules that were written last, and not seen changed since.
    pub(crate) fn written(&self) -> Option<&Ruleset> {
        self.written.as_ref().map(|written| &written.ruleset)
    }

    /// Looks at the kernel's rules, and writes them where they are not what is wanted.
    ///
    /// # Errors
    ///
    /// No nft, or one that refuses; rules that cannot be read.
    pub(crate) fn turn(&mut self, wanted: &Wanted) -> Result<Outcome, NftError> {
        let reader = Reader::open().map_err(NftError::Read)?;
        let mut damaged = false;
        if let Some(written) = &mut self.written {
            damaged = !written.fingerprint.holds(&reader).map_err(NftError::Read)?;
            if !damaged && written.ruleset == wanted.ruleset {
                return Ok(Outcome::InPlace);
            }
        }
        let may = match damaged {
            true => wanted.may_repair,
            false => wanted.may_write,
        };
        if !may {
            return Ok(Outcome::Early);
        }
        let changes = self
            .written
            .take()
            .filter(|_| !damaged)
            .and_then(|written| wanted.ruleset.since(&written.ruleset));
        let started = Instant::now();
        match &changes {
            Some(changes) => nft::run(changes)?,
            None => self.write_whole(&wanted.ruleset)?,
        }
        let took_ms = started.elapsed().as_millis();
        let fingerprint = Fingerprint::read(&reader).map_err(NftError::Read)?;
        self.written = Some(Written {
            ruleset: wanted.ruleset.clone(),
            fingerprint,
        });
        let peers = wanted.ruleset.peers();
        match (damaged, changes.is_some()) {
            (true, _) => tracing::warn!(
                peers,
                took_ms,
                "somebody changed the packet filter's tables named {TABLE}: written anew"
            ),
            (_, false) => tracing::info!(peers, took_ms, "packet filter's rules written"),
            (_, true) => tracing::debug!(peers, took_ms, "packet filter's sets changed"),
        }
        Ok(match damaged {
            true => Outcome::Repaired,
            false => Outcome::Written,
        })
    }

    fn write_whole(&mut self, ruleset: &Ruleset) -> Result<(), NftError> {
        match nft::run(&ruleset.text(self.by_bridge)) {
            Err(NftError::Refused(reason)) if self.by_bridge => {
                tracing::info!(
                    reason,
                    "this kernel cannot tell the bridge of a port (nft_meta_bridge): its ports are named one by one"
                );
                self.by_bridge = false;
                nft::run(&ruleset.text(false))
            }
            other => other,
        }
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
