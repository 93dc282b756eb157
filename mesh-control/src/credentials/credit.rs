//! Nodes that show a certificate which the database does not know. What it says is noted when they register: from then on
//! they can be revoked, and nobody is taken for them without it.
//!
//! 1. A certificate of the mesh says which node it is. It was given before the database was lost or went back.
//! 2. An authority of one's own (`--tls-ca`) does not know of nodes. A host that shows the key of a node which has no
//!    credentials is that node: a cluster from before keeps its subnets. Any other is a new node, whose id is made of its
//!    name, so that every replica comes to the same one.

use mesh_credentials::certificate::Presented;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_rest::node_id::NodeId;
use tracing::info;

use super::refusal::CredentialError;
use crate::access::origin::Certificate;
use crate::registry::{Registry, unix_seconds};
use crate::store::{AuditEntry, CredentialChange, NewCredential};

/// The end of 9999, in Unix seconds. What a certificate of one's own calls a node is not forgotten: the authority may make
/// another at any time, also for one that was revoked here.
const NEVER: i64 = 253_402_300_799;

impl Registry {
    /// Takes note of the certificate by which a host that came from `source` registers as `node`, unless there is one
    /// already. Returns which node it is.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub(crate) async fn credit(
        &self,
        node: NodeId,
        certificate: &Certificate,
        node_key: Option<&str>,
        source: &str,
    ) -> Result<NodeId, CredentialError> {
        if self.credentials.node(node.as_str()).is_some() {
            return Ok(node);
        }
        let key = certificate.key();
        let (issuer, expires_at) = match certificate {
            Certificate::Mesh(presented) => (self.issuer(presented)?, presented.not_after),
            Certificate::Own(_) => (own_certificate::issuer(), NEVER),
        };
        let now = unix_seconds();
        let _turn = self.turn.lock().await;
        let mut change = self.store.begin_credentials().await?;
        // Another replica may have been faster.
        let known = change.credentials_of(node.as_str(), key).await?;
        let known = known.into_iter().find(|known| match certificate {
            Certificate::Mesh(_) => known.node_id == node.as_str(),
            Certificate::Own(_) => true,
        });
        if let Some(known) = known {
            change.roll_back().await?;
            self.read_credentials().await?;
            return match known.key == key && !known.revoked {
                true => Ok(NodeId::from(known.node_id)),
                false => Err(CredentialError::NodeRevoked),
            };
        }
        let node = match certificate {
            Certificate::Own(_) => node_before(&mut change, node_key).await?.unwrap_or(node),
            Certificate::Mesh(_) => node,
        };
        change
            .credit(NewCredential {
                node_id: node.as_str(),
                key,
                issuer,
                expires_at,
                joined_by: "",
                only_hostname: None,
                now,
            })
            .await?;
        change
            .keep_audit(&AuditEntry {
                at: now,
                who: format!("certificate {certificate}"),
                source: source.to_owned(),
                action: "join".to_owned(),
                subject: format!("node {node}"),
                outcome: "done".to_owned(),
                times: 1,
            })
            .await?;
        change.finish().await?;
        self.read_credentials().await?;
        info!(node_id = %node, %certificate, source, "a node is known by its certificate from now on");
        Ok(node)
    }

    /// The key of the authority that has signed a certificate of the mesh.
    fn issuer(&self, presented: &Presented) -> Result<KeyDigest, CredentialError> {
        let trust = self.credentials.trust();
        let of_name = trust.as_ref().and_then(|trust| {
            let mut all = trust.iter();
            all.find(|trusted| trusted.presented.issuer == presented.issuer)
        });
        let key = of_name.map(|trusted| trusted.key());
        key.or_else(|| self.credentials.signs())
            .ok_or_else(|| CredentialError::NoAuthority("it has none".to_owned()))
    }
}

/// The node with this key, if it has no credentials.
async fn node_before(
    change: &mut CredentialChange,
    node_key: Option<&str>,
) -> Result<Option<NodeId>, CredentialError> {
    let Some(node_key) = node_key else {
        return Ok(None);
    };
    let node = change.node_with_key(node_key).await?;
    let node = node.filter(|node| !node.has_credentials);
    Ok(node.map(|node| NodeId::from(node.node_id)))
}
