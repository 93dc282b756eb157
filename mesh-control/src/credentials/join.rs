//! Which node a host becomes that brings a token, and the certificate that it gets.
//!
//! 1. A token that is made for a node, by its name or id, makes whoever brings it that node: the key that it had before
//!    is worth nothing from then on. Which node that is was found out when the token was made: names can be taken by others
//!    since. If there was none of that name, the host is a new one, and may register by that name only; unless there is one
//!    by now that has no credentials, which it is then.
//! 2. By any other token, a host whose request is signed by the key by which a node is known is that node: it has the key,
//!    whatever became of its certificate and of the authority that signed that. One that was revoked needs a token of its
//!    own.
//! 3. By any other token, a host that names the node key of a node which has no credentials is that node, as it was before
//!    there were credentials: it keeps its subnet.
//! 4. A host that asks again by the token with which it has joined, with the same key, is answered again, and no use of the
//!    token counts: the answer was lost on its way.
//! 5. Everybody else is a new node. In particular the node key of a node that has credentials proves nothing: it is text,
//!    which anybody may have copied.

use std::sync::Arc;
use std::time::Instant;

use mesh_credentials::authority::{Authority, NODE_LIFE, Request};
use mesh_credentials::certificate::Presented;
use mesh_credentials::join_token::JoinToken;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_rest::join::{Join, Joined};
use mesh_rest::node_id::NodeId;
use tracing::info;

use super::audit::Doer;
use super::credit::CREDITED;
use super::refusal::CredentialError;
use crate::access::mandate::Mandate;
use crate::cluster::node::random_id;
use crate::registry::{Registry, unix_seconds};
use crate::store::{
    AuditEntry, AuthorityState, CredentialChange, Known, MeantNode, NewCredential, NodeCredential,
    StoredToken,
};

/// Which node a host becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Becomes<'a> {
    /// One that there is.
    Node(&'a str),
    /// A new one.
    New,
}

/// Decides by the rules above. `named` are the nodes of the token's name or id, `known` the one that is known by the key
/// that signed the request, `keyed` the one with the node key that the host names.
fn decide<'a>(
    only_hostname: Option<&str>,
    named: &'a [MeantNode],
    known: Option<&'a NodeCredential>,
    keyed: Option<&'a Known>,
) -> Result<Becomes<'a>, CredentialError> {
    let Some(name) = only_hostname else {
        return Ok(match (known, keyed) {
            (Some(node), _) => Becomes::Node(&node.node_id),
            (None, Some(node)) if !node.has_credentials => Becomes::Node(&node.node_id),
            _ => Becomes::New,
        });
    };
    match named {
        [] => Ok(Becomes::New),
        [node] => Ok(Becomes::Node(&node.node_id)),
        several => Err(CredentialError::Ambiguous {
            name: name.to_owned(),
            nodes: several.to_vec(),
        }),
    }
}

/// Whether the token lets anybody join at this moment.
fn check(token: &StoredToken, now: i64) -> Result<(), CredentialError> {
    let id = token.token_id.clone();
    if token.revoked_at.is_some() {
        return Err(CredentialError::TokenRevoked(id));
    }
    if token.expires_at <= now {
        let expired_at = token.expires_at;
        return Err(CredentialError::TokenExpired {
            id,
            expired_at,
            now,
        });
    }
    Ok(())
}

fn used_up(token: &StoredToken) -> CredentialError {
    CredentialError::TokenUsedUp {
        id: token.token_id.clone(),
        uses: token.uses,
    }
}

impl Registry {
    /// Lets a host join that came from `source`.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn join(&self, join: &Join, source: &str) -> Result<Joined, CredentialError> {
        let token: JoinToken = join.token.parse()?;
        let stored = self.token(&token).await?;
        let now = unix_seconds();
        check(&stored, now)?;
        // Only for who has a token: it is the costly part.
        let request = Request::read(&join.request)?;
        self.check_uses(&stored, request.key).await?;
        self.may_have_one(request.key)?;
        let _turn = self.turn.lock().await;
        let (mut change, authority) = self.begin_signing(request.key, &Mandate::own()).await?;
        // It may have been revoked at another replica a moment ago.
        let stored = self.known_token(&stored.token_id).unwrap_or(stored);
        if let Err(error) = check(&stored, now) {
            change.roll_back().await?;
            return Err(error);
        }
        let issuer = authority.trusted().key();
        let entry = |action: &str, node_id: &str| AuditEntry {
            at: now,
            who: format!("token {}", stored.token_id),
            source: source.to_owned(),
            action: action.to_owned(),
            subject: format!("node {node_id}"),
            outcome: "done".to_owned(),
            times: 1,
        };
        if let Some(node_id) = change.joined_by(&stored.token_id, request.key).await? {
            let certificate = authority.sign_node(&request, &node_id, now)?;
            let expires_at = now + NODE_LIFE;
            change
                .renew(&node_id, request.key, issuer, expires_at)
                .await?;
            let again = entry("join again", &node_id);
            change.keep_audit(&again).await?;
            self.finish_credentials(change).await?;
            info!(name: "host-joined-asked-again",
                node_id,
                token = stored.token_id,
                source,
                "a host that had joined asked again"
            );
            return self.joined(node_id, certificate);
        }
        let (name, named) = named(&mut change, &stored).await?;
        let known = match name {
            Some(_) => Vec::new(),
            None => change.nodes_of_key(request.key).await?,
        };
        // It may have become another node by each of several tokens: it is the last of them.
        let known = known.first();
        // Or its agent would undo a revocation by what is left of the token that it joined by.
        if known.is_some_and(|known| known.revoked) {
            change.roll_back().await?;
            return Err(CredentialError::NodeRevoked);
        }
        let keyed = match (&join.node_key, &name) {
            (Some(node_key), None) => change.node_with_key(node_key).await?,
            _ => None,
        };
        let (node_id, is_new) = match decide(name.as_deref(), &named, known, keyed.as_ref())? {
            Becomes::Node(node_id) => (node_id.to_owned(), false),
            Becomes::New => (random_id().as_str().to_owned(), true),
        };
        // Of many that come with one token at once, no more than it is for.
        if !change.use_token(&stored.token_id, now).await? {
            change.roll_back().await?;
            self.read_credentials().await?;
            return Err(used_up(&stored));
        }
        let certificate = authority.sign_node(&request, &node_id, now)?;
        end_own_certificate(&mut change, &node_id, request.key, now).await?;
        change
            .credit(NewCredential {
                node_id: &node_id,
                key: request.key,
                issuer,
                expires_at: now + NODE_LIFE,
                joined_by: &stored.token_id,
                // A node that there is goes by the name that it has, or by the one that it is bound to.
                only_hostname: match known {
                    Some(known) => known.only_hostname.as_deref(),
                    None => name.as_deref().filter(|_| is_new),
                },
                now,
            })
            .await?;
        change.keep_audit(&entry("join", &node_id)).await?;
        self.finish_credentials(change).await?;
        info!(name: "host-joined",
            node_id,
            is_new,
            token = stored.token_id,
            source,
            "a host joined"
        );
        self.joined(node_id, certificate)
    }

    /// Gives a node a new certificate for the key that it has, in the place of the one that it shows.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn renew_certificate(
        &self,
        node: &NodeId,
        certificate: &Presented,
        request: &str,
        doer: &Doer,
    ) -> Result<Joined, CredentialError> {
        let request = Request::read(request)?;
        let (node_id, key) = (node.as_str(), certificate.key);
        if request.key != key {
            return Err(CredentialError::OtherKey);
        }
        self.may_have_one(key)?;
        let _turn = self.turn.lock().await;
        let (mut change, authority) = self.begin_signing(key, &doer.mandate).await?;
        let (now, issuer) = (unix_seconds(), authority.trusted().key());
        let signed = authority.sign_node(&request, node_id, now)?;
        let expires_at = now + NODE_LIFE;
        if !change.renew(node_id, key, issuer, expires_at).await? {
            // One that was given before the database was lost or went back is as good as any: whatever was revoked is
            // there. See docs/SECURITY_SETUP.md. What this process remembers may be less.
            let known = change.credentials_of(node_id, key).await?;
            let refused = match known.iter().any(|known| known.node_id == node_id) {
                true => Some(CredentialError::NodeRevoked),
                false => self.check_signed(certificate).err(),
            };
            if let Some(refused) = refused {
                change.roll_back().await?;
                return Err(refused);
            }
            change
                .credit(NewCredential {
                    node_id,
                    key,
                    issuer,
                    expires_at,
                    joined_by: "",
                    only_hostname: None,
                    now,
                })
                .await?;
            change
                .keep_audit(&doer.did(CREDITED, &format!("node {node_id}")))
                .await?;
        }
        self.finish_credentials(change).await?;
        info!(name: "node-renewed-certificate",
            node_id,
            source = doer.source,
            "a node renewed its certificate"
        );
        self.joined(node_id.to_owned(), signed)
    }

    fn joined(&self, node_id: String, certificate: String) -> Result<Joined, CredentialError> {
        let none = || CredentialError::NoAuthority("it has none".to_owned());
        let trust = self.credentials.trust().ok_or_else(none)?;
        let signs = self.credentials.signs().ok_or_else(none)?;
        Ok(Joined {
            node_id,
            mesh_id: trust.mesh().to_string(),
            certificate,
            authorities: trust.pem(),
            authorities_digest: trust.digest(signs),
            time: unix_seconds(),
        })
    }

    /// Whether a host with this key can join by the token at all. As far as is known here: two that come at once are told
    /// apart by the store, which is not asked where nothing can come of it. A token that is used up costs no more than one
    /// that was never made.
    async fn check_uses(&self, token: &StoredToken, key: KeyDigest) -> Result<(), CredentialError> {
        if token.uses_left > 0 || self.credentials.knows_key(key) {
            return Ok(());
        }
        if self.replica.is_some() {
            // It may have joined at another replica a moment ago, and asks here for the answer.
            self.read_credentials().await?;
        }
        match self.credentials.knows_key(key) {
            true => Ok(()),
            false => Err(used_up(token)),
        }
    }

    /// Whether a key may have a certificate now.
    fn may_have_one(&self, key: KeyDigest) -> Result<(), CredentialError> {
        let asked = self.issued.ask(key, Instant::now());
        asked.map_err(CredentialError::TooOften)
    }

    /// Starts a change in which this key is given a certificate, with who signs it. Where that cannot be, for no reason of
    /// the key's, it was not given one.
    async fn begin_signing(
        &self,
        key: KeyDigest,
        mandate: &Mandate,
    ) -> Result<(CredentialChange, Arc<Authority>), CredentialError> {
        let begun = async {
            let mut change = self.begin_credentials(mandate).await?;
            let authority = self.signer_in(&mut change).await?;
            Ok((change, authority))
        };
        let begun = begun.await;
        if let Err(CredentialError::Store(_) | CredentialError::NoAuthority(_)) = begun {
            self.issued.give_back(key);
        }
        begun
    }

    /// The stored token that this is.
    async fn token(&self, token: &JoinToken) -> Result<StoredToken, CredentialError> {
        let ours = |registry: &Self| {
            let trust = registry.credentials.trust();
            trust.is_some_and(|trust| trust.find(token.authority).is_some())
        };
        let mut stored = self.known_token(&token.id);
        if stored.is_none() && self.replica.is_some() {
            // It may have been made at another replica a moment ago.
            self.read_credentials().await?;
            stored = self.known_token(&token.id);
        }
        if !ours(self) {
            return Err(CredentialError::OtherMesh(token.authority));
        }
        // One answer for both, so that nobody learns which ids there are.
        stored
            .filter(|stored| stored.secret.is_of(&token.secret))
            .ok_or(CredentialError::UnknownToken)
    }

    fn known_token(&self, id: &str) -> Option<StoredToken> {
        self.credentials.state().tokens.get(id).cloned()
    }

    /// The authority that signs, with its key.
    pub(crate) fn signer(&self) -> Result<Arc<Authority>, CredentialError> {
        self.with_key(self.credentials.signs())
    }

    /// The same, as long as a change lasts: nobody can have another sign meanwhile, at any replica.
    pub(crate) async fn signer_in(
        &self,
        change: &mut CredentialChange,
    ) -> Result<Arc<Authority>, CredentialError> {
        let authorities = change.authorities().await?;
        let mut signing = authorities
            .iter()
            .filter(|it| it.state == AuthorityState::Signs);
        self.with_key(signing.next().map(|it| it.trusted.key()))
    }

    fn with_key(&self, signs: Option<KeyDigest>) -> Result<Arc<Authority>, CredentialError> {
        let Some(signs) = signs else {
            return Err(CredentialError::NoAuthority("it has none".to_owned()));
        };
        self.authorities.find(signs).ok_or_else(|| {
            CredentialError::NoAuthority(format!(
                "its file lacks the key of the authority {signs}; see quilt-mesh-control ca import"
            ))
        })
    }
}

/// The name that a token binds to, and the nodes that it means. Made for the id of a node, it binds to none.
async fn named(
    change: &mut CredentialChange,
    token: &StoredToken,
) -> Result<(Option<String>, Vec<MeantNode>), CredentialError> {
    let Some(name) = token.only_hostname.clone() else {
        return Ok((None, Vec::new()));
    };
    if let Some(node_id) = &token.only_node_id {
        // Also if it was removed since: it has its id again then.
        let mut nodes = change.meant_by(node_id).await?;
        nodes.retain(|node| &node.node_id == node_id);
        if nodes.is_empty() {
            nodes.push(MeantNode {
                node_id: node_id.clone(),
                host_ip: None,
                state: "removed".to_owned(),
                has_credentials: false,
            });
        }
        return Ok((Some(name), nodes));
    }
    // Whoever has credentials and calls itself so came by a token of its own.
    let mut nodes = change.meant_by(&name).await?;
    nodes.retain(|node| !node.has_credentials);
    Ok((Some(name), nodes))
}

/// A host that showed certificates of one's own until now, and joins with a token, is known by its key from then on. Who
/// still shows the former is not to be a new node by it: least of all one that was revoked.
async fn end_own_certificate(
    change: &mut CredentialChange,
    node_id: &str,
    key: KeyDigest,
    now: i64,
) -> Result<(), CredentialError> {
    let rows = change.credentials_of(node_id, key).await?;
    let own = own_certificate::issuer();
    let before = rows
        .into_iter()
        .find(|row| row.node_id == node_id && row.issuer == own);
    let Some(before) = before else { return Ok(()) };
    let called = own_certificate::node_id(before.key);
    if called != node_id {
        change
            .credit(NewCredential {
                node_id: &called,
                key: before.key,
                issuer: own,
                expires_at: before.expires_at,
                joined_by: "",
                only_hostname: None,
                now,
            })
            .await?;
        change.revoke_node(&called, now).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
