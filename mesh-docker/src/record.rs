//! What was given to Docker, on the disk: Docker names networks, endpoints and addresses by what it was told once, and expects them to
//! be known after any restart.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, bail};
use mesh_ipam::Owner;
use mesh_plugin::{FileError, replace};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{ENGINE, NETWORK, network::Network, pool::Node, turn::Turns, unfinished::Told};

/// The interface's name in leases. Docker numbers a container's interfaces, and tells nobody.
const INTERFACE: &str = "eth";

/// What the holders of addresses that are set aside begin with.
pub(crate) const RESERVED: &str = "reserved-";

/// Who may write is who may put containers on the mesh.
const MODE: u32 = 0o600;

/// An address that Docker has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// By what its lease is known: the container's MAC address, which Docker shows as well. Empty of an address that was given back
    /// while nobody could tell whose it is: the runtime says that.
    pub(crate) holder: String,
    /// Docker's endpoint that has it, if one has it yet, or still.
    #[serde(default)]
    pub(crate) endpoint: Option<Endpoint>,
    /// Whether an interface may be there, which is to be taken off when the endpoint is gone.
    #[serde(default)]
    pub(crate) attached: bool,
    /// Whether Docker has given it back.
    #[serde(default)]
    pub(crate) released: bool,
}

/// An endpoint of Docker's: one container in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) network: String,
    /// What Docker calls the network namespace of the container, once it has joined.
    #[serde(default)]
    pub(crate) sandbox: Option<String>,
}

impl Held {
    /// Whether something of it is to be undone.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.released || (self.attached && self.endpoint.is_none())
    }

    /// Whose lease it is. `None` if somebody wrote what cannot be to the file.
    pub(crate) fn owner(&self) -> Option<Owner> {
        owner(&self.holder)
    }
}

/// A lease that was asked for, and of which Docker has not heard: nobody but this driver would give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Whether nobody is at it any more: whoever asked had no answer, or was another process.
    #[serde(skip, default = "is_abandoned")]
    pub(crate) abandoned: bool,
}

/// Of what is read from the disk.
fn is_abandoned() -> bool {
    true
}

/// The owner of a lease of Docker's.
pub(crate) fn owner(holder: &str) -> Option<Owner> {
    Owner::new(ENGINE, NETWORK, holder, INTERFACE).ok()
}

/// All that is kept.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) held: Table<Ipv4Addr, Held>,
    pub(crate) networks: Table<String, Network>,
    /// By their holders.
    pub(crate) asked: Table<String, Asked>,
    pub(crate) turns: Turns,
    pub(crate) told: Told,
    /// What the runtime said last, for who asks while there is none. Its key is the only one.
    node: Table<String, Node>,
    _only: Flock<fs::File>,
}

const OWN: &str = "own";

impl Records {
    /// Reads what is in a directory, for this process alone.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let shown = directory.display();
        fs::create_dir_all(directory)
            .with_context(|| format!("--state-dir {shown} cannot be made"))?;
        let file = fs::File::create(directory.join("lock"))
            .with_context(|| format!("--state-dir {shown} cannot be written to"))?;
        let Ok(only) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            bail!(
                "--state-dir {shown} is in use by another quilt-docker: stop that one, or choose another directory"
            );
        };
        Ok(Self {
            held: Table::open(directory.join("addresses"))?,
            networks: Table::open(directory.join("networks"))?,
            asked: Table::open(directory.join("asked"))?,
            turns: Turns::default(),
            told: Told::default(),
            node: Table::open(directory.join("node"))?,
            _only: only,
        })
    }

    /// The address that an endpoint has.
    pub(crate) fn of_endpoint(&self, id: &str) -> Option<(Ipv4Addr, Held)> {
        self.held
            .find(|held| held.endpoint.as_ref().is_some_and(|it| it.id == id))
    }

    /// The address that is held by that MAC address, and was not given back.
    pub(crate) fn of_holder(&self, holder: &str) -> Option<(Ipv4Addr, Held)> {
        self.held
            .find(|held| held.holder == holder && !held.released)
    }

    /// Whether something is to be undone.
    pub(crate) fn is_unfinished(&self) -> bool {
        let asked = || self.asked.find(|it| it.abandoned).is_some();
        self.held.find(Held::is_unfinished).is_some() || asked()
    }

    /// What the runtime said of its node when it was there.
    pub(crate) fn node(&self) -> Option<Node> {
        self.node.get(OWN)
    }

    /// Keeps that, if it is news.
    pub(crate) fn set_node(&self, node: Node) -> Result<(), FileError> {
        match self.node() == Some(node) {
            true => Ok(()),
            false => self.node.put(OWN.to_owned(), node),
        }
    }
}

/// Entries in memory, each with a file of its own.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    directory: PathBuf,
    entries: Mutex<BTreeMap<K, V>>,
}

impl<K, V> Table<K, V>
where
    K: Clone + Display + FromStr + Ord,
    V: Clone + Serialize + DeserializeOwned,
{
    fn open(directory: PathBuf) -> anyhow::Result<Self> {
        let read = || -> io::Result<BTreeMap<K, V>> {
            fs::create_dir_all(&directory)?;
            let mut entries = BTreeMap::new();
            for file in fs::read_dir(&directory)? {
                let path = file?.path();
                // Others are left of a write that did not end.
                if path.extension().is_none_or(|it| it != "json") {
                    continue;
                }
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let content = fs::read(&path)?;
                match (name.parse(), serde_json::from_slice(&content)) {
                    (Ok(key), Ok(value)) => {
                        entries.insert(key, value);
                    }
                    (_, read) => {
                        let error = read.err().map(|it| it.to_string());
                        tracing::warn!(name: "file-nobody-here-wrote-passed", path = %path.display(), error, "a file that nobody here wrote is passed over");
                    }
                }
            }
            Ok(entries)
        };
        let entries = read().with_context(|| format!("cannot read {}", directory.display()))?;
        Ok(Self {
            directory,
            entries: Mutex::new(entries),
        })
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<K, V>> {
        // Entries are replaced as a whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: &K) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.entries().get(key).cloned()
    }

    /// The first that fits.
    pub(crate) fn find(&self, fits: impl Fn(&V) -> bool) -> Option<(K, V)> {
        let entries = self.entries();
        let mut all = entries.iter();
        let found = all.find(|(_, value)| fits(value));
        found.map(|(key, value)| (key.clone(), value.clone()))
    }

    /// All that fit.
    pub(crate) fn all(&self, fits: impl Fn(&V) -> bool) -> Vec<(K, V)> {
        let entries = self.entries();
        let all = entries.iter().filter(|(_, value)| fits(value));
        all.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Writes an entry before it counts.
    pub(crate) fn put(&self, key: K, value: V) -> Result<(), FileError> {
        let mut entries = self.entries();
        self.write(&key, &value)?;
        entries.insert(key, value);
        Ok(())
    }

    /// Keeps an entry although it may not be written: what is to be undone is known for as long as this process lives. One that is
    /// there has to fit: by now it may be another one.
    pub(crate) fn put_if_possible(&self, key: K, value: V, fits: impl FnOnce(&V) -> bool) {
        let mut entries = self.entries();
        if !entries.get(&key).is_none_or(fits) {
            return;
        }
        if let Err(error) = self.write(&key, &value) {
            tracing::warn!(name: "what-undone-known-long-process", %error, "what is to be undone is known for as long as this process lives");
        }
        entries.insert(key, value);
    }

    fn write(&self, key: &K, value: &V) -> Result<(), FileError> {
        // Of our own types: numbers, texts and lists, which JSON has.
        let text = serde_json::to_vec(value).unwrap_or_default();
        tokio::task::block_in_place(|| replace(&self.path(key), &text, MODE))
    }

    /// Removes an entry, which always counts: one that stays on the disk is removed again.
    pub(crate) fn remove(&self, key: &K) {
        self.remove_if(key, |_| true);
    }

    /// Removes an entry that fits: by now it may be another one.
    pub(crate) fn remove_if(&self, key: &K, fits: impl FnOnce(&V) -> bool) {
        let mut entries = self.entries();
        if !entries.get(key).is_none_or(fits) {
            return;
        }
        entries.remove(key);
        match tokio::task::block_in_place(|| fs::remove_file(self.path(key))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(name: "cannot-remove-file", path = %self.path(key).display(), %error, "cannot remove the file");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str) -> Held {
        Held {
            holder: holder.to_owned(),
            endpoint: None,
            attached: false,
            released: false,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_written_is_there_after_a_restart_and_what_was_removed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address: Ipv4Addr = [10, 42, 1, 7].into();
        let other: Ipv4Addr = [10, 42, 1, 8].into();
        {
            let records = Records::open(folder.path()).unwrap();
            records.held.put(address, held("a")).unwrap();
            records.held.put(other, held("b")).unwrap();
            records.held.remove(&other);
            assert!(Records::open(folder.path()).is_err(), "a second one");
        }
        fs::write(folder.path().join("addresses/10.42.1.9.json"), "{").unwrap();
        fs::write(folder.path().join("addresses/.tmp"), "").unwrap();
        let records = Records::open(folder.path()).unwrap();
        assert_eq!(records.held.all(|_| true), [(address, held("a"))]);
        assert_eq!(records.of_holder("a").unwrap().0, address);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_written_does_not_count_unless_it_is_to_be_undone() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let address: Ipv4Addr = [10, 42, 1, 7].into();
        fs::remove_dir_all(folder.path().join("addresses")).unwrap();
        fs::write(folder.path().join("addresses"), "in the way").unwrap();
        assert!(records.held.put(address, held("a")).is_err());
        assert_eq!(records.held.get(&address), None);
        records.held.put_if_possible(address, held("a"), |_| true);
        assert_eq!(records.held.get(&address), Some(held("a")));
        records
            .held
            .put_if_possible(address, held("b"), |it| it.holder == "b");
        records.held.remove_if(&address, |it| it.holder == "b");
        assert_eq!(records.held.get(&address), Some(held("a")), "another's");
    }

    #[test]
    fn what_docker_has_given_back_or_left_attached_is_to_be_undone() {
        let endpoint = Some(Endpoint {
            id: "e".to_owned(),
            network: "n".to_owned(),
            sandbox: None,
        });
        let state = |endpoint: &Option<Endpoint>, attached, released| Held {
            endpoint: endpoint.clone(),
            attached,
            released,
            ..held("a")
        };
        assert!(!state(&None, false, false).is_unfinished());
        assert!(!state(&endpoint, true, false).is_unfinished());
        assert!(state(&None, true, false).is_unfinished());
        assert!(state(&endpoint, true, true).is_unfinished());
    }
}
