//! The database file as a file: opened before SQLite does, locked, and watched.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

/// The database file, held open with an exclusive `flock`.
///
/// Two control planes on one file would each keep their own view of who is alive; the lock lets only
/// one in, and the kernel drops it when the process dies. SQLite's own locks (`fcntl`) are of another
/// kind, so that backups and an `sqlite3` shell still work. But POSIX drops a process's `fcntl`
/// locks on a file when it closes *any* descriptor of that file: this one has to be dropped after
/// SQLite's are closed.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    file: File,
    created: bool,
}

impl DatabaseFile {
    /// Opens `path` for writing; creates it, readable by its owner alone (it holds the nodes' keys).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let (file, created) = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (options.create_new(true).open(path)?, true)
            }
            opened => (opened?, false),
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            created,
        })
    }

    /// Takes the lock; `false`: another process has it.
    pub(super) fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the path still leads to the file that is open. SQLite does not ask in WAL mode, and
    /// would go on writing to a deleted file: everything acknowledged would be lost at the next start.
    pub(super) fn check_in_place(&self) -> Result<(), StoreError> {
        let opened = self.file.metadata().map_err(|_| StoreError::Gone)?;
        let there = std::fs::metadata(&self.path).map_err(|_| StoreError::Gone)?;
        let same = (opened.dev(), opened.ino()) == (there.dev(), there.ino());
        if same { Ok(()) } else { Err(StoreError::Gone) }
    }

    /// Removes a file that [`Self::open`] created, after the database could not be set up in it.
    pub(super) fn discard_if_created(self) {
        if self.created {
            // Nothing to do if it fails: an empty file is a valid, empty database.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
