//! The control planes of one run: one on SQLite, or three on a PostgreSQL database.

use std::sync::{Arc, Mutex};

use crate::answer::Api;
use crate::process::{ControlPlane, Setup};
use crate::steps::{CLUSTER_CIDR, NODE_PREFIX, Pick};

/// Where to find the replicas now: a restart changes a replica's port.
#[derive(Clone)]
pub(crate) struct Addresses(Arc<Mutex<Vec<Api>>>);

impl Addresses {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn replica(&self, pick: usize) -> Api {
        let addresses = self.0.lock().unwrap();
        addresses[pick % addresses.len()].clone()
    }
}

/// Real processes with one store.
pub(crate) struct Cluster {
    setups: Vec<Setup>,
    replicas: Vec<Option<ControlPlane>>,
    addresses: Addresses,
}

impl Cluster {
    /// One control plane on an SQLite file of its own.
    pub(crate) fn sqlite(node_timeout: &str) -> Self {
        Self::start(vec![Setup::new()], node_timeout)
    }

    /// Three replicas on an empty PostgreSQL database.
    pub(crate) fn postgres(url: &str, node_timeout: &str) -> Self {
        let replica = || {
            let setup = Setup::new();
            let folder = setup.folder().to_str().unwrap().to_owned();
            setup
                .with_default_db_path()
                .with("--database-url", url)
                .with("--state-dir", &folder)
        };
        Self::start(vec![replica(), replica(), replica()], node_timeout)
    }

    fn start(setups: Vec<Setup>, node_timeout: &str) -> Self {
        let setups: Vec<Setup> = setups
            .into_iter()
            .map(|setup| {
                setup
                    .with("--cluster-cidr", CLUSTER_CIDR)
                    .with("--node-prefix", &NODE_PREFIX.to_string())
                    .with("--node-timeout", node_timeout)
            })
            .collect();
        let replicas: Vec<ControlPlane> = setups.iter().map(Setup::start).collect();
        let addresses = Addresses(Arc::new(Mutex::new(replicas.iter().map(Api::of).collect())));
        Self {
            setups,
            replicas: replicas.into_iter().map(Some).collect(),
            addresses,
        }
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub(crate) fn count(&self) -> usize {
        self.setups.len()
    }

    fn index(&self, pick: Pick) -> usize {
        usize::from(pick) % self.count()
    }

    /// SIGKILL, in the middle of whatever it does.
    pub(crate) fn kill(&mut self, pick: Pick) {
        let index = self.index(pick);
        self.replicas[index].take().unwrap().kill();
    }

    /// SIGTERM; it finishes what it does.
    pub(crate) fn stop(&mut self, pick: Pick) {
        let index = self.index(pick);
        let status = self.replicas[index].take().unwrap().stop();
        assert!(status.success(), "a stop ended with {status}");
    }

    /// Starts a replica again, on the same store.
    pub(crate) fn start_again(&mut self, pick: Pick) {
        let index = self.index(pick);
        let replica = self.setups[index].start();
        self.addresses.0.lock().unwrap()[index] = Api::of(&replica);
        self.replicas[index] = Some(replica);
    }
}
