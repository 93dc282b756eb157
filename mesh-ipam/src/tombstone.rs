//! What is left for a runtime that is not there: whose interface was deleted meanwhile.
//!
//! An engine that removes a container while no runtime runs must not be told that it cannot. It deletes the interface
//! itself, and leaves a file that names the owner, beside the runtime's socket, in a directory that the runtime makes.
//! The runtime takes the lease back when it is there again. Files are gone with the host's life, and so are the leases
//! of containers.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::Owner;

/// The directory's name.
const NAME: &str = "gone";

/// The longest file that is read: an owner has at most 272 bytes.
const LONGEST: u64 = 512;

/// So many files are read at a time.
const MOST: usize = 4096;

/// The directory of tombstones beside a runtime's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstones(PathBuf);

impl Tombstones {
    /// Beside this socket.
    pub fn beside(socket: &Path) -> Self {
        let directory = socket.parent().unwrap_or(Path::new("/"));
        Self(directory.join(NAME))
    }

    /// Makes the directory, for this user alone.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn make(&self) -> io::Result<()> {
        let made = fs::DirBuilder::new().mode(0o700).create(&self.0);
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Leaves word that an owner's interface was deleted. Where there is no directory, no runtime has run since the host
    /// started, and no lease is left to be taken back.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn leave(&self, owner: &Owner) -> io::Result<()> {
        let path = self.path(owner);
        // Whole or not at all, whoever reads meanwhile.
        let unfinished = self
            .0
            .join(format!(".{}.{}", owner.link_name(), std::process::id()));
        // The runtime may be another user than who leaves it, and nobody else gets into the directory.
        let readable = fs::Permissions::from_mode(0o644);
        let written = fs::write(&unfinished, owner.to_string())
            .and_then(|()| fs::set_permissions(&unfinished, readable))
            .and_then(|()| fs::rename(&unfinished, &path));
        match written {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.0.exists() => Ok(()),
            Err(error) => {
                // What is left of it is nobody's.
                let _ = fs::remove_file(&unfinished);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Takes word of an owner away. Whether there was any.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn take(&self, owner: &Owner) -> io::Result<bool> {
        match fs::remove_file(self.path(owner)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether there is word of an owner.
    pub fn has(&self, owner: &Owner) -> bool {
        self.path(owner).exists()
    }

    /// The owners of whom there is word. What is no tombstone is passed over.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn owners(&self) -> io::Result<Vec<Owner>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut owners = Vec::new();
        for entry in entries.take(MOST) {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if !metadata.is_file() || metadata.len() > LONGEST {
                continue;
            }
            let Ok(text) = fs::read_to_string(entry.path()) else {
                continue;
            };
            if let Ok(owner) = text.parse::<Owner>()
                && entry.file_name() == owner.link_name().as_str()
            {
                owners.push(owner);
            }
        }
        Ok(owners)
    }

    fn path(&self, owner: &Owner) -> PathBuf {
        self.0.join(owner.link_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(container: &str) -> Owner {
        Owner::new("podman", "quilt", container, "eth0").unwrap()
    }

    #[test]
    fn word_of_an_owner_is_there_until_it_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let tombstones = Tombstones::beside(&folder.path().join("runtime.sock"));
        // No runtime has run yet.
        tombstones.leave(&owner("early")).unwrap();
        assert_eq!(tombstones.owners().unwrap(), []);
        tombstones.make().unwrap();
        tombstones.make().unwrap();
        let mode = fs::metadata(folder.path().join(NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        tombstones.leave(&owner("web")).unwrap();
        tombstones.leave(&owner("web")).unwrap();
        assert_eq!(tombstones.owners().unwrap(), [owner("web")]);
        assert!(tombstones.has(&owner("web")) && !tombstones.has(&owner("db")));
        assert!(tombstones.take(&owner("web")).unwrap());
        assert!(!tombstones.take(&owner("web")).unwrap());
        assert_eq!(fs::read_dir(folder.path().join(NAME)).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_tombstone_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let tombstones = Tombstones::beside(&folder.path().join("runtime.sock"));
        tombstones.make().unwrap();
        let directory = folder.path().join(NAME);
        fs::create_dir(directory.join("folder")).unwrap();
        fs::write(directory.join("other"), owner("web").to_string()).unwrap();
        fs::write(
            directory.join(owner("web").link_name()),
            "podman/quilt/db/eth0",
        )
        .unwrap();
        fs::write(directory.join("long"), vec![b'a'; 1 << 20]).unwrap();
        fs::write(directory.join("bytes"), [0xff, 0]).unwrap();
        tombstones.leave(&owner("db")).unwrap();
        assert_eq!(tombstones.owners().unwrap(), [owner("db")]);
    }
}
