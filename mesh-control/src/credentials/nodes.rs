//! Nodes with what they are known by: listed, revoked.

use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_rest::node_credential::{
    CredentialState, MembershipState, NodeCredentialEntry, NodeCredentialList,
};
use mesh_rest::status::Status;

use super::audit::Doer;
use super::refusal::CredentialError;
use crate::registry::{Registry, unix_seconds};
use crate::store::NodeCredential;

impl Registry {
    /// Every node, and what it is known by: those that registered by name, then those that only have a certificate.
    #[must_use]
    pub fn node_credentials(&self) -> NodeCredentialList {
        let now = unix_seconds();
        let memory = self.copy.memory();
        let state = self.credentials.state();
        let authorities = state.authorities.iter();
        let trusted: Vec<KeyDigest> = authorities.map(|it| it.trusted.key()).collect();
        let registered = memory.roster.nodes().map(|node| {
            let node_id = node.node_id.as_str();
            let (status, last_heartbeat) = match memory.liveness.look_up(&node.node_id) {
                Some((status, last_heartbeat)) => (status, last_heartbeat),
                None => (node.status, node.last_heartbeat),
            };
            let membership = match status {
                _ if node.left => MembershipState::Left,
                _ if node.deregistered => MembershipState::Stopped,
                Status::Up => MembershipState::Up,
                Status::Down => MembershipState::Down,
            };
            let known = state.nodes.get(node_id);
            NodeCredentialEntry {
                node_id: node.node_id.clone(),
                hostname: Some(node.hostname.clone()),
                host_ip: Some(node.host_ip),
                subnet: Some(node.subnet),
                state: membership,
                last_heartbeat: Some(last_heartbeat),
                credential: credential(known, &trusted, now),
                expires_at: expires_at(known),
                issuer: issuer(known),
            }
        });
        let mut nodes: Vec<NodeCredentialEntry> = registered.collect();
        nodes.sort_by(|a, b| (&a.hostname, &a.node_id).cmp(&(&b.hostname, &b.node_id)));
        let not_registered = state.nodes.values();
        let mut others: Vec<NodeCredentialEntry> = not_registered
            .filter(|known| memory.roster.node(&known.node_id).is_none())
            .map(|known| NodeCredentialEntry {
                node_id: known.node_id.clone().into(),
                hostname: known.only_hostname.clone(),
                host_ip: None,
                subnet: None,
                state: MembershipState::Unregistered,
                last_heartbeat: None,
                credential: credential(Some(known), &trusted, now),
                expires_at: expires_at(Some(known)),
                issuer: issuer(Some(known)),
            })
            .collect();
        others.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        nodes.extend(others);
        NodeCredentialList { nodes }
    }

    /// Lets a node do nothing any more: its questions that wait end as well.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn revoke_node(&self, node_id: &str, doer: &Doer) -> Result<(), CredentialError> {
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        if !change.revoke_node(node_id, unix_seconds()).await? {
            change.roll_back().await?;
            let id = node_id.to_owned();
            return Err(CredentialError::NothingToRevoke {
                what: "node with credentials",
                id,
            });
        }
        let subject = format!("node {node_id}");
        change
            .keep_audit(&doer.did("revoke node", &subject))
            .await?;
        self.finish_credentials(change).await?;
        Ok(())
    }
}

fn credential(known: Option<&NodeCredential>, trusted: &[KeyDigest], now: i64) -> CredentialState {
    match known {
        None => CredentialState::None,
        Some(known) if known.revoked => CredentialState::Revoked,
        Some(known) if known.issuer == own_certificate::issuer() => CredentialState::Own,
        Some(known) if !trusted.contains(&known.issuer) => CredentialState::Untrusted,
        Some(known) if known.expires_at <= now => CredentialState::Expired,
        Some(_) => CredentialState::Valid,
    }
}

/// Of one's own certificates only the name is known.
fn expires_at(known: Option<&NodeCredential>) -> Option<i64> {
    let known = known.filter(|known| known.issuer != own_certificate::issuer());
    known.map(|known| known.expires_at)
}

fn issuer(known: Option<&NodeCredential>) -> Option<String> {
    let known = known.filter(|known| known.issuer != own_certificate::issuer());
    known.map(|known| known.issuer.to_string())
}
