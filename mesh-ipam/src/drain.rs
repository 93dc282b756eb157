//! The mark of a node that takes no new containers: a file beside the leases, which is there or not.
//!
//! It is no line of the journal, so that whoever knows no such mark reads the leases all the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::DiskError;

/// Name of the file. It holds since when, in seconds since 1970.
const FILE: &str = "drained";

/// No such file is longer, in bytes.
const LONGEST: u64 = 32;

/// The mark in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    path: PathBuf,
}

impl Mark {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self {
            path: directory.join(FILE),
        }
    }

    /// Since when it is there, in seconds since 1970; 0 where that cannot be read. `None`: it is not there.
    pub(crate) fn read(&self) -> io::Result<Option<u64>> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            // A pipe would be waited for. Whatever it is, somebody made it by that name.
            Ok(found) if !found.is_file() => return Ok(Some(0)),
            Ok(_) => {}
        }
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|it| it.take(LONGEST).read_to_string(&mut text));
        Ok(Some(match read {
            Ok(_) => text.trim().parse().unwrap_or_default(),
            Err(_) => 0,
        }))
    }

    /// Makes it. It is on the disk when this returns.
    pub(crate) fn make(&self, since: u64) -> Result<(), DiskError> {
        let written = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&self.path)?;
            writeln!(file, "{since}")?;
            file.sync_all()?;
            self.sync_directory()
        };
        written().map_err(|error| {
            // Of one that may not be on the disk nothing shall be left: the caller is told that nothing was changed.
            let _ = fs::remove_file(&self.path);
            self.failed("write", &error)
        })
    }

    /// Takes it away. That is on the disk when this returns.
    pub(crate) fn remove(&self) -> Result<(), DiskError> {
        let removed = match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.sync_directory()),
        };
        removed.map_err(|error| self.failed("remove", &error))
    }

    /// A name reaches the disk with its directory.
    fn sync_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_there_until_it_is_taken_away_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mark = Mark::in_directory(dir.path());
        assert_eq!(mark.read().unwrap(), None);
        mark.make(1_800_000_000).unwrap();
        assert_eq!(mark.read().unwrap(), Some(1_800_000_000));
        fs::write(dir.path().join(FILE), "yes").unwrap();
        assert_eq!(mark.read().unwrap(), Some(0));
        mark.remove().unwrap();
        mark.remove().unwrap();
        assert_eq!(mark.read().unwrap(), None);
    }

    #[test]
    fn a_mark_that_cannot_be_made_is_told_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = Mark::in_directory(&dir.path().join("gone")).make(1);
        let text = error.unwrap_err().to_string();
        assert!(text.contains("gone/drained"), "{text}");
    }
}
