//! The file that tells what a pool is: changes one after the other, each on the disk before it counts.

use std::{collections::HashMap, io, net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;

use crate::{Change, Pool, record};

mod file;
mod open;
#[cfg(test)]
mod tests;

pub use open::OpenError;
pub(crate) use open::{open, open_to_read};

use file::{Replaced, Storage};

/// How many times the size of what it tells a journal may have, beyond what is spare.
const FACTOR: u64 = 4;
/// About the size of a line that tells of a released address.
const RELEASED_LINE: u64 = 42;

/// Why the disk did not take a change. Nothing was changed then.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("cannot {action} {}: {reason}; nothing was changed: {}, then ask again", .path.display(), advice(*.kind))]
pub struct DiskError {
    /// What was tried.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The kernel's reason, for programs.
    pub kind: io::ErrorKind,
    /// The kernel's reason, in words.
    pub reason: String,
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull => "make room on its file system",
        io::ErrorKind::QuotaExceeded => "raise the quota, or make room",
        io::ErrorKind::ReadOnlyFilesystem => "mount its file system for writing",
        _ => "see what the kernel's log says of the disk, and mend it",
    }
}

/// The journal of one pool.
pub(crate) struct Journal {
    storage: Box<dyn Storage>,
    path: PathBuf,
    life: String,
    /// How long the file is, as far as it counts.
    len: u64,
    /// Whether the file is not what the pool was, or may not be: it is written anew before it counts
    /// again.
    renew: bool,
    /// Whether the last commit failed.
    failing: bool,
    staged: Staged,
    /// Lengths of the lines that tell of the leases there are, and their sum.
    lines: HashMap<Ipv4Addr, u64>,
    live: u64,
    /// The length from which it is tried to write the file anew.
    patience: u64,
}

/// Lines that wait for the next commit.
#[derive(Default)]
struct Staged {
    bytes: Vec<u8>,
    changes: Vec<StagedLine>,
    failed: Option<io::Error>,
}

enum StagedLine {
    Subnet,
    Leased(Ipv4Addr, u64),
    Released(Ipv4Addr),
}

impl Journal {
    /// A journal in `storage` that is `len` bytes long and tells of `pool`; with `renew` it has to be
    /// written anew first.
    fn new(
        storage: Box<dyn Storage>,
        path: PathBuf,
        life: &str,
        len: u64,
        renew: bool,
        pool: &Pool,
    ) -> Self {
        let mut journal = Self {
            storage,
            path,
            life: life.to_owned(),
            len,
            renew,
            failing: false,
            staged: Staged::default(),
            lines: HashMap::new(),
            live: 0,
            patience: 0,
        };
        // Lengths alone: what cannot be written is told when it is written.
        let _ = journal.snapshot(pool);
        journal
    }

    /// Adds a change of a pool that has this subnet now. It counts with the next commit.
    pub(crate) fn stage(&mut self, change: &Change, subnet: Option<Ipv4Net>) {
        let before = self.staged.bytes.len();
        if let Err(error) = record::encode(change, subnet, &self.life, &mut self.staged.bytes) {
            self.staged.failed = Some(error.into());
        }
        let length = (self.staged.bytes.len() - before) as u64;
        self.staged.changes.push(match change {
            Change::Subnet(_) => StagedLine::Subnet,
            Change::Leased(lease) => StagedLine::Leased(lease.address, length),
            Change::Released(address) => StagedLine::Released(*address),
        });
    }

    /// Brings to the disk what was staged, which made the pool what `pool` is. On an error none of it
    /// counts.
    pub(crate) fn commit(&mut self, pool: &Pool) -> Result<(), DiskError> {
        let staged = std::mem::take(&mut self.staged);
        let result = match (staged.failed, self.renew) {
            (Some(error), _) => Err(self.failed("write", &error)),
            (None, true) => self.rewrite(pool),
            (None, false) => self.append(&staged.bytes).map(|()| {
                for line in staged.changes {
                    self.count(&line);
                }
            }),
        };
        match &result {
            Ok(()) if std::mem::take(&mut self.failing) => {
                tracing::info!(path = %self.path.display(), "leases can be written again");
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                tracing::error!(
                    path = %self.path.display(),
                    reason = error.reason,
                    "leases cannot be written: addresses are neither leased nor released until \
                     they can"
                );
            }
            _ => {}
        }
        result
    }

    /// Writes the file anew if it is much larger than what it tells. A failure harms nobody: the file
    /// goes on as it is.
    pub(crate) fn compact(&mut self, pool: &Pool) {
        let live = self.live + RELEASED_LINE * pool.resting() as u64;
        if self.renew
            || self.len < self.patience
            || self.len <= FACTOR * live + self.storage.spare()
        {
            return;
        }
        let before = self.len;
        match self.rewrite(pool) {
            Ok(()) => tracing::debug!(
                path = %self.path.display(), before, after = self.len, "leases written anew"
            ),
            Err(error) => {
                self.patience = self.len + self.storage.spare();
                tracing::warn!(
                    path = %self.path.display(),
                    length = self.len,
                    reason = error.reason,
                    "the file of leases cannot be written anew: it grows on"
                );
            }
        }
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), DiskError> {
        if let Err(error) = self.storage.write_at(lines, self.len) {
            self.cut();
            return Err(self.failed("write", &error));
        }
        if let Err(error) = self.storage.sync() {
            // The kernel may have dropped what it could not write, and says so once: what is on the
            // disk is not what is read.
            self.renew = true;
            self.cut();
            return Err(self.failed("sync", &error));
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Takes away what follows the last line that counts.
    fn cut(&mut self) {
        if let Err(error) = self.storage.truncate(self.len) {
            self.renew = true;
            tracing::warn!(
                path = %self.path.display(),
                reason = error.to_string(),
                "what was written of leases cannot be taken back: the file is written anew first"
            );
        }
    }

    fn rewrite(&mut self, pool: &Pool) -> Result<(), DiskError> {
        let file = match self.snapshot(pool) {
            Ok(file) => file,
            Err(error) => return Err(self.failed("write", &error)),
        };
        match self.storage.replace(&file) {
            Ok(()) => {
                self.len = file.len() as u64;
                self.renew = false;
                self.patience = 0;
                Ok(())
            }
            Err(Replaced::No(error)) => Err(self.failed("write anew", &error)),
            Err(Replaced::Perhaps(error)) => {
                self.renew = true;
                Err(self.failed("replace", &error))
            }
        }
    }

    /// A file that tells of the pool and of nothing before it.
    fn snapshot(&mut self, pool: &Pool) -> io::Result<Vec<u8>> {
        let mut file = record::header().into_bytes();
        self.count(&StagedLine::Subnet);
        for change in pool.changes() {
            let before = file.len();
            record::encode(&change, pool.subnet(), &self.life, &mut file)?;
            if let Change::Leased(lease) = change {
                let length = (file.len() - before) as u64;
                self.count(&StagedLine::Leased(lease.address, length));
            }
        }
        Ok(file)
    }

    fn count(&mut self, line: &StagedLine) {
        let before = match *line {
            StagedLine::Subnet => {
                self.lines.clear();
                self.live = 0;
                None
            }
            StagedLine::Leased(address, length) => {
                self.live += length;
                self.lines.insert(address, length)
            }
            StagedLine::Released(address) => self.lines.remove(&address),
        };
        self.live -= before.unwrap_or_default();
    }

    fn failed(&self, action: &'static str, error: &io::Error) -> DiskError {
        DiskError {
            action,
            path: self.path.clone(),
            kind: error.kind(),
            reason: error.to_string(),
        }
    }
}
