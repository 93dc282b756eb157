//! Which node somebody means by a name or an id.
//!
//! Every node says itself what it is called, and several may say the same: a name finds nodes, and never tells which of
//! them is meant.

use super::{CredentialChange, StoreError};

/// A node that may be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeantNode {
    /// Its id.
    pub node_id: String,
    /// Its underlay address; `None`: it joined, and did not register yet.
    pub host_ip: Option<String>,
    /// A word for how it is: `up`, `down`, `stopped`, `left`, `joined`.
    pub state: String,
    /// Whether it has credentials, revoked or not.
    pub has_credentials: bool,
}

impl std::fmt::Display for MeantNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host_ip = self.host_ip.as_deref().unwrap_or("no address yet");
        write!(f, "{} ({host_ip}, {})", self.node_id, self.state)
    }
}

impl CredentialChange {
    /// The nodes that this name or id may mean, in the order of their ids: the one with the id, if there is one, and else
    /// all of that name. Those count as well that have joined, and did not register yet.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn meant_by(&mut self, name_or_id: &str) -> Result<Vec<MeantNode>, StoreError> {
        let rows: Vec<(String, Option<String>, String, i64)> = sqlx::query_as(
            "SELECT nodes.node_id, host_ip, CASE WHEN left_at IS NOT NULL THEN 'left' \
             WHEN must_register = 1 THEN 'stopped' ELSE status END, \
             CASE WHEN node_credentials.node_id IS NULL THEN 0 ELSE 1 END FROM nodes \
             LEFT JOIN node_credentials ON node_credentials.node_id = nodes.node_id \
             WHERE nodes.hostname = $1 OR nodes.node_id = $1 \
             UNION SELECT node_credentials.node_id, NULL, 'joined', 1 FROM node_credentials \
             WHERE (node_credentials.node_id = $1 OR (only_hostname = $1 AND revoked_at IS NULL)) \
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.node_id = node_credentials.node_id) ORDER BY 1",
        )
        .bind(name_or_id)
        .fetch_all(self.connection()?)
        .await?;
        let mut nodes: Vec<MeantNode> = rows
            .into_iter()
            .map(|(node_id, host_ip, state, has_credentials)| MeantNode {
                node_id,
                host_ip,
                state,
                has_credentials: has_credentials != 0,
            })
            .collect();
        if nodes.iter().any(|node| node.node_id == name_or_id) {
            // A node may call itself by another one's id.
            nodes.retain(|node| node.node_id == name_or_id);
        }
        Ok(nodes)
    }
}
