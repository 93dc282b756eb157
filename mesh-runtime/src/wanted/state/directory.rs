//! The files of the state directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use mesh_ipam::{Ipam, Lease};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{
    choose::Found,
    record::{self, Life, MAX_LEN},
};
use crate::wanted::{Wanted, subnet::Cluster};

const STATE: &str = "state";
const NEW: &str = "state.new";
const LOCK: &str = "lock";
const LEASES: &str = "leases";
/// That of the registry of leases, for a node that takes no new containers.
const DRAINED: &str = "drained";

/// How many files that could not be used are kept; the last makes room for the next.
const MAX_DAMAGED: u32 = 4;

/// What keeps the state from being kept.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another runtime uses the directory.
    #[error(
        "state directory {path} is in use by another runtime: give this one a directory of its \
         own with --state-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file could not be made, read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |source| StateDirError::File {
        action,
        path,
        source,
    }
}

/// The state directory, held for this runtime alone.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    lock: Flock<File>,
    cluster: Cluster,
    life: Life,
}

impl Directory {
    /// Makes the directory if there is none and takes its lock.
    pub(crate) fn open(path: &Path, cluster: Cluster) -> Result<Self, StateDirError> {
        fs::create_dir_all(path).map_err(failed("create", path))?;
        let lock = path.join(LOCK);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(failed("open", &lock))?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    Errno::EWOULDBLOCK => StateDirError::InUse {
                        path: path.to_owned(),
                    },
                    errno => failed("lock", &lock)(errno.into()),
                },
            )?;
        Ok(Self {
            path: path.to_owned(),
            lock,
            cluster,
            life: current_life(),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what an earlier run left. A file that cannot be used is set aside, and it is as
    /// if there were none.
    pub(crate) fn read(&self) -> Found {
        let (behind, generation) = self.read_mark();
        let kept = match self.read_state() {
            Ok(kept) => kept,
            Err(reason) => {
                self.set_aside(&reason);
                None
            }
        };
        Found {
            kept,
            behind,
            generation,
        }
    }

    fn read_state(&self) -> Result<Option<Wanted>, String> {
        let path = self.path.join(STATE);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
            Ok(found) if found.is_file() => {}
            // A pipe would be waited for.
            Ok(_) => return Err("it is no regular file".to_owned()),
        }
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        // One byte more than is taken tells that there is more.
        file.take(MAX_LEN as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        record::decode(&bytes, &self.cluster, &self.life)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    fn set_aside(&self, reason: &str) {
        let name = |number| self.path.join(format!("{STATE}.damaged-{number}"));
        let free = (1..MAX_DAMAGED).find(|&number| !name(number).exists());
        let aside = name(free.unwrap_or(MAX_DAMAGED));
        let result = fs::rename(self.path.join(STATE), &aside);
        tracing::warn!(name: "state-file-cannot-used",
            path = %self.path.join(STATE).display(),
            reason,
            aside = %aside.display(),
            failed = result.err().map(|error| error.to_string()),
            "the state file cannot be used: set aside; going on from what the kernel shows and \
             from the agent's next sync"
        );
    }

    /// Replaces the state file, so that whatever happens there is either the old one or the
    /// new one.
    pub(crate) fn write(&self, wanted: &Wanted) -> Result<(), StateDirError> {
        let bytes = record::encode(wanted, &self.cluster, &self.life);
        let new = self.path.join(NEW);
        // What was left of a write that was cut off, and whatever else has the name.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &new)(error));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed("create", &new))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(failed("write", &new))?;
        let state = self.path.join(STATE);
        fs::rename(&new, &state).map_err(failed("replace", &state))?;
        // The new name has to reach the disk as well.
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync", &self.path))
    }

    /// Says whether the file lags behind the kernel, and the newest generation. It takes
    /// microseconds: the mark has to outlive this process, not the host.
    pub(crate) fn mark(&self, behind: bool, generation: u64) -> Result<(), StateDirError> {
        let text = format!("behind={} generation={generation:020}\n", u8::from(behind));
        self.lock
            .write_all_at(text.as_bytes(), 0)
            .map_err(failed("write", &self.path.join(LOCK)))
    }

    fn read_mark(&self) -> (bool, u64) {
        let mut bytes = [0; 64];
        let length = self.lock.read_at(&mut bytes, 0).unwrap_or_default();
        parse_mark(&bytes[..length])
    }
}

/// What a mark says. None means that nothing was ever changed; one that cannot be read, that
/// something may have been.
fn parse_mark(bytes: &[u8]) -> (bool, u64) {
    if bytes.is_empty() {
        return (false, 0);
    }
    let parse = || {
        let text = str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let (behind, generation) = text.strip_prefix("behind=")?.split_once(' ')?;
        let generation = generation.strip_prefix("generation=")?.parse().ok()?;
        Some((behind != "0", generation))
    };
    parse().unwrap_or((true, 0))
}

/// The life of the host's network namespace that this process is in.
pub(crate) fn current_life() -> Life {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |it| it.ino());
    Life {
        boot: boot.trim().to_owned(),
        namespace,
    }
}

/// The leases that a runtime keeps in `path`.
pub(crate) fn leases(path: &Path, cluster: Cluster) -> Result<Vec<Lease>, StateDirError> {
    if !path.join(LEASES).exists() {
        return Ok(Vec::new());
    }
    let _directory = Directory::open(path, cluster)?;
    let ipam = Ipam::open(path, &current_life().to_string())
        .map_err(|error| failed("read", &path.join(LEASES))(io::Error::other(error)))?;
    Ok(ipam.leases())
}

/// Whether a runtime makes files of that name: the wanted state, the leases, what became of either, and the
/// mark of a drained node.
fn is_ours(name: &str) -> bool {
    let of = |file: &str| {
        name.strip_prefix(file)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    name == LOCK || name == DRAINED || of(STATE) || of(LEASES)
}

/// Removes what a runtime keeps in `path`, and the directory if nothing else is in it.
/// Returns whether there was anything.
pub(crate) fn remove(path: &Path, cluster: Cluster) -> Result<bool, StateDirError> {
    if !path.join(LOCK).exists() {
        return Ok(false);
    }
    let directory = Directory::open(path, cluster)?;
    for entry in fs::read_dir(path).map_err(failed("read", path))? {
        let entry = entry.map_err(failed("read", path))?.path();
        let name = entry.file_name().and_then(|name| name.to_str());
        if name.is_some_and(is_ours) {
            fs::remove_file(&entry).map_err(failed("remove", &entry))?;
        }
    }
    drop(directory);
    match fs::remove_dir(path) {
        // Somebody else's files, or a directory that systemd keeps.
        Err(error)
            if [
                io::ErrorKind::DirectoryNotEmpty,
                io::ErrorKind::ResourceBusy,
            ]
            .contains(&error.kind()) =>
        {
            Ok(true)
        }
        other => other.map(|()| true).map_err(failed("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::options::RuntimeOptions;

    fn open(path: &Path) -> Result<Directory, StateDirError> {
        Directory::open(path, Cluster::from(&RuntimeOptions::default()))
    }

    fn wanted(generation: u64) -> Wanted {
        Wanted {
            subnet: Some("10.42.1.0/24".parse().unwrap()),
            generation,
            ..Wanted::default()
        }
    }

    #[test]
    fn a_directory_has_one_runtime_at_a_time() {
        let dir = TempDir::new().unwrap();
        let first = open(dir.path()).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("--state-dir"), "{error}");
        drop(first);
        open(dir.path()).unwrap();
    }

    #[test]
    fn what_was_written_last_is_read_and_the_mark_with_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a/b");
        let directory = open(&path).unwrap();
        assert_eq!(directory.read(), Found::default());
        directory.write(&wanted(1)).unwrap();
        directory.mark(true, 2).unwrap();
        directory.write(&wanted(2)).unwrap();
        directory.mark(false, 3).unwrap();
        drop(directory);
        let expected = Found {
            kept: Some(wanted(2)),
            behind: false,
            generation: 3,
        };
        assert_eq!(open(&path).unwrap().read(), expected);
    }

    #[test]
    fn damaged_files_are_set_aside_and_not_without_end() {
        let dir = TempDir::new().unwrap();
        let directory = open(dir.path()).unwrap();
        for round in 0..10 {
            fs::write(dir.path().join(STATE), format!("round {round}")).unwrap();
            assert_eq!(directory.read().kept, None);
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "lock",
                "state.damaged-1",
                "state.damaged-2",
                "state.damaged-3",
                "state.damaged-4"
            ]
        );
        let last = fs::read_to_string(dir.path().join("state.damaged-4")).unwrap();
        assert_eq!(last, "round 9");
    }

    #[test]
    fn pipes_by_the_names_of_files_are_not_waited_for() {
        let dir = TempDir::new().unwrap();
        let directory = open(dir.path()).unwrap();
        for name in [STATE, NEW] {
            nix::unistd::mkfifo(&dir.path().join(name), nix::sys::stat::Mode::S_IRUSR).unwrap();
        }
        assert_eq!(directory.read().kept, None);
        assert!(dir.path().join("state.damaged-1").exists());
        directory.write(&wanted(1)).unwrap();
        assert_eq!(directory.read().kept, Some(wanted(1)));
    }

    #[test]
    fn removing_leaves_what_others_put_there() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("state");
        assert!(!remove(&path, Cluster::from(&RuntimeOptions::default())).unwrap());
        open(&path).unwrap().write(&wanted(1)).unwrap();
        fs::write(path.join("theirs"), "").unwrap();
        assert!(remove(&path, Cluster::from(&RuntimeOptions::default())).unwrap());
        let names: Vec<_> = fs::read_dir(&path).unwrap().collect();
        assert_eq!(names.len(), 1);
        fs::remove_file(path.join("theirs")).unwrap();
        open(&path).unwrap();
        assert!(remove(&path, Cluster::from(&RuntimeOptions::default())).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_mark_that_cannot_be_read_says_that_the_kernel_may_be_ahead() {
        assert_eq!(parse_mark(b""), (false, 0));
        assert_eq!(
            parse_mark(b"behind=0 generation=00000000000000000007\n"),
            (false, 7)
        );
        assert_eq!(
            parse_mark(b"behind=1 generation=00000000000000000007\n"),
            (true, 7)
        );
        assert_eq!(parse_mark(b"behind=0 gen"), (true, 0));
        assert_eq!(parse_mark(&[0; 41]), (true, 0));
    }
}
