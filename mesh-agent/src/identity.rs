//! The node's stable identity: a key that outlives its address and its host name.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// Name of the key's file in the state directory.
pub const FILE_NAME: &str = "node-key";

/// A random number that the control plane knows the node by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeKey(Uuid);

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there is no key. The node then goes by its address.
#[derive(Debug, thiserror::Error)]
pub enum NodeKeyError {
    /// The state directory is missing: making one is the installation's business, because
    /// two agents on one machine (network namespaces) must not share it.
    #[error(
        "state directory {0} does not exist; create it, owned by the agent's user, or name another with --state-dir"
    )]
    NoDirectory(PathBuf),
    /// The file could not be read or written.
    #[error("node key {path}: {source}; make the directory writable for the agent's user")]
    File {
        /// The key's file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file holds something else. It is left as it is: a new key would be a new node
    /// with a new subnet, and an operator may still have the old one in a backup.
    #[error("{0} does not hold a node key; restore it, or remove it to make this a new node")]
    Damaged(PathBuf),
}

/// Reads the node key from `directory`, or makes one there.
///
/// A new key is written to a temporary file, synced and linked under its name (mode 0600):
/// after a crash there is the whole key or none, and of two agents started together the
/// second takes the first one's.
///
/// # Errors
/// If the directory is missing or unwritable, or the file does not hold a key.
pub fn load_or_create(directory: &Path) -> Result<NodeKey, NodeKeyError> {
    let path = directory.join(FILE_NAME);
    let failed = |source| NodeKeyError::File {
        path: path.clone(),
        source,
    };
    if !directory.is_dir() {
        return Err(NodeKeyError::NoDirectory(directory.to_owned()));
    }
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    let key = NodeKey(Uuid::new_v4());
    match create(directory, &path, key) {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(&path)?.ok_or_else(|| failed(error))
        }
        Err(error) => Err(failed(error)),
    }
}

fn read(path: &Path) -> Result<Option<NodeKey>, NodeKeyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(NodeKeyError::File {
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut text = String::new();
    let damaged = || NodeKeyError::Damaged(path.to_owned());
    // No key is longer; whatever else lies there need not be read to the end.
    file.take(128)
        .read_to_string(&mut text)
        .map_err(|_| damaged())?;
    let key = Uuid::parse_str(text.trim()).map_err(|_| damaged())?;
    if key.is_nil() {
        return Err(damaged());
    }
    Ok(Some(NodeKey(key)))
}

fn create(directory: &Path, path: &Path, key: NodeKey) -> io::Result<()> {
    let temporary = directory.join(format!(".{FILE_NAME}.{}", Uuid::new_v4()));
    let written = write_new(&temporary, key).and_then(|()| fs::hard_link(&temporary, path));
    let removed = fs::remove_file(&temporary);
    written?;
    removed?;
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, key: NodeKey) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{key}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_readable_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let made = load_or_create(directory.path()).unwrap();
        assert_eq!(load_or_create(directory.path()).unwrap(), made);

        let files: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(files, [FILE_NAME], "no temporary file stays behind");
        let mode = fs::metadata(directory.path().join(FILE_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn two_directories_are_two_nodes() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(
            load_or_create(a.path()).unwrap(),
            load_or_create(b.path()).unwrap()
        );
    }

    #[test]
    fn agents_started_together_agree_on_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create(directory.path()).unwrap().to_string()))
                .collect();
            started.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[test]
    fn a_missing_directory_is_not_created() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let error = load_or_create(&missing).unwrap_err();
        assert!(matches!(error, NodeKeyError::NoDirectory(_)), "{error}");
        assert!(!missing.exists());
    }

    #[test]
    fn a_damaged_key_is_reported_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        for damage in [&b"not a key"[..], b"", b"\xff\xfe", &[b'a'; 100_000]] {
            fs::write(&path, damage).unwrap();
            let error = load_or_create(directory.path()).unwrap_err();
            assert!(matches!(error, NodeKeyError::Damaged(_)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damage);
        }
    }
}
