//! What is left for a runtime that is not there: whose interface was deleted meanwhile.
//!
//! An engine that removes a container while no runtime runs must not be told that it cannot. It deletes the interface
//! itself, and leaves a file that names the owner, beside the runtime's socket, in a directory that the runtime makes.
//! The runtime takes the lease back when it is there again. Files are gone with the host's life, and so are the leases
//! of containers.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

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

    /// Makes the directory, for the user alone whose the socket's is. One that is there has to be that.
    ///
    /// # Errors
    ///
    /// The file system's, or that others may write there: word of theirs would take off anybody's container.
    pub fn make(&self) -> io::Result<()> {
        let beside = self.0.parent().unwrap_or(Path::new("/")).metadata()?;
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
            // By root for a runtime of another user. Without the right to, it is the own one's.
            Ok(()) if beside.uid() != self.0.symlink_metadata()?.uid() => {
                let _ = lchown(&self.0, Some(beside.uid()), None);
            }
            Ok(()) => {}
        }
        let there = self.0.symlink_metadata()?;
        let trusted = [0, geteuid().as_raw(), beside.uid()].contains(&there.uid());
        if !there.is_dir() || !trusted || there.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!(
                "{} is no directory that only the runtime's user may write to: remove it",
                self.0.display()
            )));
        }
        // Such as that of root, left to a runtime of another user.
        fs::read_dir(&self.0).map(drop)
    }

    /// Leaves word that an owner's interface is deleted.
    ///
    /// # Errors
    ///
    /// Those of [`Self::make`].
    pub fn leave(&self, owner: &Owner) -> io::Result<()> {
        self.make()?;
        let path = self.path(owner);
        // Whole or not at all, whoever reads meanwhile.
        let unfinished = self
            .0
            .join(format!(".{}.{}", owner.link_name(), std::process::id()));
        // The runtime may be another user than who leaves it, and nobody else gets into the directory.
        let readable = fs::Permissions::from_mode(0o644);
        let written = fs::File::create_new(&unfinished).and_then(|mut file| {
            file.write_all(owner.to_string().as_bytes())?;
            file.set_permissions(readable)?;
            fs::rename(&unfinished, &path)
        });
        match written {
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
        let found = self.path(owner).symlink_metadata();
        found.is_ok_and(|it| it.is_file())
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
    fn a_directory_that_others_may_write_to_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let tombstones = Tombstones::beside(&folder.path().join("runtime.sock"));
        let directory = folder.path().join(NAME);
        std::os::unix::fs::symlink("/tmp", &directory).unwrap();
        assert!(tombstones.make().is_err());
        assert!(tombstones.leave(&owner("web")).is_err());
        fs::remove_file(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(tombstones.leave(&owner("web")).is_err());
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        tombstones.leave(&owner("web")).unwrap();
        assert_eq!(tombstones.owners().unwrap(), [owner("web")]);
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
