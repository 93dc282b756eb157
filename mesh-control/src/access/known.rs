//! Credentials in memory.

use mesh_credentials::certificate::Presented;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use mesh_credentials::key_digest::KeyDigest;
use mesh_rest::security::Stage;
use tokio::sync::watch;

use super::credentials::{Credentials, NodeCredential, OperatorCredential};

/// The credentials of a cluster, as they were told last.
#[derive(Debug)]
pub struct Known {
    all: RwLock<All>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct All {
    stage: Stage,
    had_some: bool,
    nodes: HashMap<String, NodeCredential>,
    operators: HashMap<String, OperatorCredential>,
}

impl Known {
    /// A cluster at this stage, without any.
    pub fn new(stage: Stage) -> Self {
        Self {
            all: RwLock::new(All {
                stage,
                had_some: false,
                nodes: HashMap::new(),
                operators: HashMap::new(),
            }),
            changes: watch::Sender::new(0),
        }
    }

    /// The cluster is at this stage from now on.
    pub fn set_stage(&self, stage: Stage) {
        self.change(|all| all.stage = stage);
    }

    /// A node has this credential from now on, or none.
    pub fn set_node(&self, node_id: &str, credential: Option<NodeCredential>) {
        self.change(|all| {
            all.had_some |= credential.is_some();
            match credential {
                Some(credential) => all.nodes.insert(node_id.to_owned(), credential),
                None => all.nodes.remove(node_id),
            }
        });
    }

    /// An operator has this credential from now on.
    pub fn set_operator(&self, id: &str, credential: OperatorCredential) {
        self.change(|all| {
            all.had_some = true;
            all.operators.insert(id.to_owned(), credential);
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut All) -> T) {
        // Each change is one insertion, which a panic elsewhere leaves whole.
        change(&mut self.all.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|number| *number += 1);
    }

    fn read<T>(&self, read: impl FnOnce(&All) -> T) -> T {
        read(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Credentials for Known {
    fn stage(&self) -> Stage {
        self.read(|all| all.stage)
    }

    fn has_credentials(&self) -> bool {
        self.read(|all| all.had_some)
    }

    fn node(&self, node_id: &str) -> Option<NodeCredential> {
        self.read(|all| all.nodes.get(node_id).copied())
    }

    fn node_called(&self, name: KeyDigest) -> Option<String> {
        self.read(|all| {
            let mut nodes = all.nodes.iter();
            let found = nodes.find(|(_, credential)| credential.key == name);
            found.map(|(node_id, _)| node_id.clone())
        })
    }

    fn trusts(&self, _certificate: &Presented) -> bool {
        true
    }

    fn signs(&self, _certificate: &Presented) -> bool {
        true
    }

    fn operator(&self, id: &str) -> Option<OperatorCredential> {
        self.read(|all| all.operators.get(id).cloned())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
