//! A journal as it is found.

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use super::{
    Journal,
    file::{LEASES, LeaseFile, ReadOnly, Storage as _},
};
use crate::{
    Pool,
    replay::{Replay, replay},
};

/// What keeps leases from being kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or its file cannot be used.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the thread that writes leases: {0}")]
    Thread(#[source] io::Error),
}

/// What a file tells in this life, if there is one.
fn read(file: Option<&File>, life: &str) -> io::Result<Replay> {
    let Some(file) = file else {
        return Ok(Replay::default());
    };
    let mut found = replay(BufReader::new(file), life)?;
    if found.whole == 0 {
        // It begins with a line that was there before it had its name.
        let nothing = "not even its first line is there".to_owned();
        found.damage.get_or_insert((nothing, 1));
    }
    Ok(found)
}

/// Opens the journal of a directory to read it, because of `why`: no change is ever taken.
pub(crate) fn open_to_read(
    directory: &Path,
    life: &str,
    why: &io::Error,
) -> io::Result<(Journal, Pool)> {
    let file = LeaseFile::open_to_read(directory)?;
    let found = read(file.as_ref(), life)?;
    if let Some(version) = found.version {
        return Err(io::Error::other(format!(
            "it is of another version, {version}"
        )));
    }
    let reason =
        format!("{why} when the runtime started, which has to be started anew once that is mended");
    let storage = Box::new(ReadOnly(why.kind(), reason));
    let path = directory.join(LEASES);
    let journal = Journal::new(storage, path, life, found.whole, true, &found.pool);
    Ok((journal, found.pool))
}

/// Opens the journal of a directory in this life, and the pool that it tells of.
pub(crate) fn open(directory: &Path, life: &str) -> Result<(Journal, Pool), OpenError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File {
            action,
            path,
            source,
        }
    };
    let mut storage = LeaseFile::open(directory).map_err(failed("use", directory))?;
    let path = storage.path();
    let found = read(storage.file(), life).map_err(failed("read", &path))?;
    let mut renew = found.whole == 0 || found.ended;
    if let Some(version) = &found.version {
        let aside = storage.keep_aside().map_err(failed("set aside", &path))?;
        tracing::error!(name: "file-leases-another-version",
            path = %path.display(),
            version,
            aside = %aside.display(),
            "the file of leases is of another version: set aside; this node begins without leases, \
             and the addresses of containers that run are not known"
        );
        renew = true;
    }
    if let Some((first, lines)) = &found.damage {
        let aside = storage.keep_aside();
        tracing::warn!(name: "file-leases-damaged",
            path = %path.display(),
            first,
            lines,
            aside = aside.as_ref().ok().map(|aside| aside.display().to_string()),
            failed = aside.as_ref().err().map(io::Error::to_string),
            "the file of leases is damaged: all lines that are whole count, and it is kept aside"
        );
        renew = true;
    }
    if found.torn > 0 {
        tracing::info!(name: "last-line-file-leases-never",
            path = %path.display(),
            bytes = found.torn,
            "the last line of the file of leases was never finished, and nobody was told of it: \
             cut off"
        );
        if !renew {
            renew = storage.truncate(found.whole).is_err();
        }
    }
    let pool = found.pool;
    let storage = Box::new(storage);
    let mut journal = Journal::new(storage, path.clone(), life, found.whole, renew, &pool);
    if renew && let Err(error) = journal.rewrite(&pool) {
        if ![io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind) {
            return Err(failed("write", &path)(io::Error::new(
                error.kind,
                error.reason,
            )));
        }
        tracing::error!(name: "leases-cannot-written",
            path = %path.display(),
            reason = error.reason,
            "leases cannot be written: addresses are neither leased nor released until there is room"
        );
        journal.failing = true;
    }
    Ok((journal, pool))
}
