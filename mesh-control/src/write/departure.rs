//! Stopping, and leaving for good.

use mesh_rest::node_id::NodeId;
use tracing::info;

use super::command::Command;
use crate::access::mandate::Mandate;
use crate::registry::{ChangeError, Registry, unix_seconds};
use crate::store::{Change, StoreError};

impl Registry {
    /// Takes a node down at once. It keeps its subnet, and comes back by registering.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn deregister(&self, node_id: &str, mandate: &Mandate) -> Result<(), ChangeError> {
        let node_id = NodeId::from(node_id.to_owned());
        self.ask(Command::Deregister, node_id, mandate)
            .await
            .map(drop)
    }

    /// Takes a node down for good, which only who proves to be it may ask for. It keeps its subnet until that is
    /// released, and comes back by registering.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn leave(
        &self,
        node_id: &str,
        proof: Proof,
        mandate: &Mandate,
    ) -> Result<(), ChangeError> {
        let node_id = NodeId::from(node_id.to_owned());
        let departure = Departure { node_id, proof };
        self.ask(Command::Leave, departure, mandate).await.map(drop)
    }
}

/// A node's agent stops; it keeps its subnet. Whether it was there until now.
pub(super) async fn deregister(
    node_id: &NodeId,
    change: &mut Change,
) -> Result<Result<bool, ChangeError>, StoreError> {
    if change.dismiss(node_id.as_str()).await? {
        return Ok(Ok(true));
    }
    let known = change.node_key(node_id.as_str()).await?;
    Ok(known.map(|_| false).ok_or(ChangeError::UnknownNode))
}

pub(super) fn deregistered(node_id: &NodeId, was_there: bool, registry: &Registry, revision: i64) {
    if was_there {
        registry.copy.memory().liveness.forget(node_id);
        registry.traffic.forget(node_id.as_str());
        let hostname = registry.hostname(node_id);
        info!(name: "node-deregistered", %node_id, hostname, revision, "node deregistered; it keeps its subnet");
    }
}

/// Who says that it leaves for good.
pub(crate) struct Departure {
    pub(super) node_id: NodeId,
    proof: Proof,
}

/// By what a node shows that it is itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By the key that it registered with.
    Key(String),
    /// By its certificate, which was looked at before.
    Certificate,
}

/// A node leaves for good. Whether it was there until now.
pub(super) async fn leave(
    departure: &Departure,
    change: &mut Change,
) -> Result<Result<bool, ChangeError>, StoreError> {
    let node_id = departure.node_id.as_str();
    match (change.node_key(node_id).await?, &departure.proof) {
        (None, _) => return Ok(Err(ChangeError::UnknownNode)),
        (Some(_), Proof::Certificate) => {}
        (Some(Some(key)), Proof::Key(shown)) if key == *shown => {}
        (Some(key), Proof::Key(_)) => {
            return Ok(Err(ChangeError::OtherKey {
                has_one: key.is_some(),
            }));
        }
    }
    Ok(Ok(change.leave(node_id, unix_seconds()).await?))
}

pub(super) fn left(node_id: &NodeId, was_there: bool, registry: &Registry, revision: i64) {
    if was_there {
        registry.copy.memory().liveness.forget(node_id);
        registry.traffic.forget(node_id.as_str());
        let hostname = registry.hostname(node_id);
        info!(name: "node-left-good", %node_id, hostname, revision, "node left for good; its subnet can be released");
    }
}
