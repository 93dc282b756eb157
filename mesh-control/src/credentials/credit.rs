//! Nodes that show a certificate which the database does not know. What it says is noted when they register: from then on
//! they can be revoked, and nobody is taken for them without it.
//!
//! 1. A certificate of the mesh says which node it is. It was given before the database was lost or went back. Only of the
//!    authority that signs now: one that another is taking the place of may be replaced because its key was stolen, and whoever
//!    has that can make certificates for any node that was never there.
//! 2. An authority of one's own (`--tls-ca`) does not know of nodes. A host that shows the key of a node which has no
//!    credentials is that node: a cluster from before keeps its subnets. Any other is a new node, whose id is made of its
//!    name, so that every replica comes to the same one.

use mesh_credentials::certificate::Presented;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_rest::node_id::NodeId;
use tracing::info;

use super::audit::Doer;
use super::refusal::CredentialError;
use crate::access::caller;
use crate::access::origin::Certificate;
use crate::registry::{Registry, unix_seconds};
use crate::store::{AuditEntry, AuthorityState, CredentialChange, NewCredential};

/// What stands in the audit for a node that is known by its certificate alone.
pub(super) const CREDITED: &str = "join";

/// The end of 9999, in Unix seconds. What a certificate of one's own calls a node is not forgotten: the authority may make
/// another at any time, also for one that was revoked here.
const NEVER: i64 = 253_402_300_799;

impl Registry {
    /// Takes note of the certificate by which a host registers as `node`, unless there is one already. Returns which node it
    /// is.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub(crate) async fn credit(
        &self,
        node: NodeId,
        certificate: &Certificate,
        node_key: Option<&str>,
        doer: &Doer,
    ) -> Result<NodeId, CredentialError> {
        if self.credentials.node(node.as_str()).is_some() {
            return Ok(node);
        }
        let key = certificate.key();
        let (issuer, expires_at) = match certificate {
            Certificate::Mesh(presented) => (self.check_signed(presented)?, presented.not_after),
            Certificate::Own(_) => (own_certificate::issuer(), NEVER),
        };
        let now = unix_seconds();
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
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
                source: doer.source.clone(),
                action: CREDITED.to_owned(),
                subject: format!("node {node}"),
                outcome: "done".to_owned(),
                times: 1,
            })
            .await?;
        self.finish_credentials(change).await?;
        info!(name: "node-known-certificate-now", node_id = %node, %certificate, source = doer.source, "a node is known by its certificate from now on");
        Ok(node)
    }

    /// Whether a certificate of the mesh, for a node that is not known, is of the authority that signs now; its key.
    pub(super) fn check_signed(&self, presented: &Presented) -> Result<KeyDigest, CredentialError> {
        let state = self.credentials.state();
        let mut authorities = state.authorities.iter();
        let signs = authorities.find(|it| it.state == AuthorityState::Signs);
        let signs = signs.ok_or_else(|| CredentialError::NoAuthority("it has none".to_owned()))?;
        match signs.trusted.presented.issuer == presented.issuer {
            true => Ok(signs.trusted.key()),
            false => Err(CredentialError::NotAnyMore(
                caller::unknown_by_another_authority(),
            )),
        }
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
