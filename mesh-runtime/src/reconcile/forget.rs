//! A node that is none any more: what was made for the mesh goes, as cleaning up has it, and the runtime waits for another one.

use std::sync::Arc;

use super::Reconciler;
use crate::{
    api::command::{Forgotten, Refusal},
    apply::Applier,
    diff::{change::Change, removal::removal},
    observed::dirty::Dirty,
};

impl Reconciler {
    /// Forgets the node's subnet and all peers, and removes what was made for them. What was forgotten before is success.
    pub(super) async fn forget(&mut self, subnet: &str) -> Result<Forgotten, Refusal> {
        let cluster = self.settings.cluster;
        let subnet = cluster.parse_subnet(subnet).map_err(Refusal::because)?;
        match self.wanted.subnet {
            None => return Ok(Forgotten::default()),
            Some(current) if current != subnet => {
                return Err(Refusal::new(format!(
                    "this node's subnet is {current}, and not {subnet}: nothing was forgotten"
                )));
            }
            Some(_) => {}
        }
        let peers = self.wanted.peers.len();
        // The others first: no program shall send to them from a node that is none.
        self.wanted.peers = Arc::default();
        self.wanted.injected = Arc::default();
        self.round(Dirty::default()).await;
        self.wanted.subnet = None;
        self.state_writer.changed(self.wanted.generation);
        tracing::info!(name: "subnet-all-peers-forgotten", %subnet, "the subnet and all peers are forgotten");
        // With it the endpoint for probes goes.
        self.round(Dirty::all()).await;
        self.read(Dirty::all()).await.map_err(Refusal::because)?;
        let mut removal = removal(&self.settings, &self.observed);
        // What guards containers that are still here stays with them; what is pinned to a bridge goes with that.
        removal
            .changes
            .retain(|change| !matches!(change, Change::UnpinContainer { .. }));
        let failed = Applier::new(&self.netlink, &self.settings, &self.observed)
            .apply(&removal.changes)
            .await;
        self.outdated = Dirty::all();
        self.round(Dirty::default()).await;
        let kept = failed.iter().map(ToString::to_string);
        let routes = match peers {
            1 => "remove 1 peer with its route".to_owned(),
            _ => format!("remove {peers} peers with their routes"),
        };
        let removed = removal.changes.iter().map(ToString::to_string);
        Ok(Forgotten {
            removed: std::iter::once(routes).chain(removed).collect(),
            kept: removal.kept.into_iter().chain(kept).collect(),
        })
    }
}
