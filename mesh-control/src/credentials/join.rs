//! Which node a host becomes that brings a token, and the certificate that it gets.
//!
//! 1. A token that is made for a node, by its name or id, makes whoever brings it that node: the key that it had before
//!    is worth nothing from then on. If there is no node of that name yet, the host is a new one, and may register by
//!    that name only.
//! 2. By any other token, a host that shows the key of a node which has no credentials is that node, as it was before
//!    there were credentials: it keeps its subnet.
//! 3. A host that asks again by the token with which it has joined, with the same key, is answered again, and no use of the
//!    token counts: the answer was lost on its way.
//! 4. Everybody else is a new node. In particular the key of a node that has credentials proves nothing.

use std::sync::Arc;

use mesh_credentials::authority::{Authority, NODE_LIFE, Request};
use mesh_credentials::join_token::JoinToken;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_rest::join::{Join, Joined};
use tracing::info;

use super::refusal::CredentialError;
use crate::cluster::node::random_id;
use crate::registry::{Registry, unix_seconds};
use crate::store::{AuditEntry, CredentialChange, Known, NewCredential, StoredToken};

/// Which node a host becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Becomes<'a> {
    /// One that there is.
    Node(&'a Known),
    /// A new one.
    New,
}

/// Decides by the rules above. `named` are the nodes of the token's name or id, `keyed` the one with the host's key.
fn decide<'a>(
    only_hostname: Option<&str>,
    named: &'a [Known],
    keyed: Option<&'a Known>,
) -> Result<Becomes<'a>, CredentialError> {
    let Some(name) = only_hostname else {
        return Ok(match keyed {
            Some(node) if !node.has_credentials => Becomes::Node(node),
            _ => Becomes::New,
        });
    };
    match named {
        [] => Ok(Becomes::New),
        [node] => Ok(Becomes::Node(node)),
        several => Err(CredentialError::Ambiguous {
            name: name.to_owned(),
            ids: several.iter().map(|node| node.node_id.clone()).collect(),
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
        let authority = self.signer()?;
        let issuer = authority.trusted().key();

        let _turn = self.turn.lock().await;
        let mut change = self.store.begin_credentials().await?;
        if let Some(node_id) = change.joined_by(&stored.token_id, request.key).await? {
            let certificate = authority.sign_node(&request, &node_id, now)?;
            let expires_at = now + NODE_LIFE;
            change
                .renew(&node_id, request.key, issuer, expires_at)
                .await?;
            change.finish().await?;
            self.read_credentials().await?;
            info!(
                node_id,
                token = stored.token_id,
                source,
                "a host that had joined asked again"
            );
            return self.joined(node_id, certificate);
        }
        let (name, named) = named(&mut change, &stored).await?;
        if name.is_none() {
            // Or its agent would undo a revocation by what is left of the token that it joined by.
            let known = change.credentials_of("", request.key).await?;
            if known.iter().any(|known| known.revoked) {
                change.roll_back().await?;
                return Err(CredentialError::NodeRevoked);
            }
        }
        let keyed = match (&join.node_key, &name) {
            (Some(node_key), None) => change.node_with_key(node_key).await?,
            _ => None,
        };
        let (node_id, is_new) = match decide(name.as_deref(), &named, keyed.as_ref())? {
            Becomes::Node(node) => (node.node_id.clone(), false),
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
                // A node that there is goes by the name that it has.
                only_hostname: name.as_deref().filter(|_| is_new),
                now,
            })
            .await?;
        change
            .keep_audit(&AuditEntry {
                at: now,
                who: format!("token {}", stored.token_id),
                source: source.to_owned(),
                action: "join".to_owned(),
                subject: format!("node {node_id}"),
                outcome: "done".to_owned(),
                times: 1,
            })
            .await?;
        change.finish().await?;
        self.read_credentials().await?;
        info!(
            node_id,
            is_new,
            token = stored.token_id,
            source,
            "a host joined"
        );
        self.joined(node_id, certificate)
    }

    /// Gives a node a new certificate for the key that it has.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn renew_certificate(
        &self,
        node_id: &str,
        key: KeyDigest,
        request: &str,
        source: &str,
    ) -> Result<Joined, CredentialError> {
        let request = Request::read(request)?;
        if request.key != key {
            return Err(CredentialError::OtherKey);
        }
        let authority = self.signer()?;
        let (now, issuer) = (unix_seconds(), authority.trusted().key());
        let certificate = authority.sign_node(&request, node_id, now)?;
        let _turn = self.turn.lock().await;
        let mut change = self.store.begin_credentials().await?;
        let expires_at = now + NODE_LIFE;
        if !change.renew(node_id, key, issuer, expires_at).await? {
            // One that was given before the database was lost or went back is as good as any: whatever was revoked is
            // there. See docs/SECURITY_SETUP.md. What this process remembers may be less.
            let known = change.credentials_of(node_id, key).await?;
            if known.iter().any(|known| known.node_id == node_id) {
                change.roll_back().await?;
                return Err(CredentialError::NodeRevoked);
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
        }
        change.finish().await?;
        self.read_credentials().await?;
        info!(node_id, source, "a node renewed its certificate");
        self.joined(node_id.to_owned(), certificate)
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

    /// The stored token that this is.
    async fn token(&self, token: &JoinToken) -> Result<StoredToken, CredentialError> {
        let ours = |registry: &Self| {
            let trust = registry.credentials.trust();
            trust.is_some_and(|trust| trust.find(token.authority).is_some())
        };
        let known = |registry: &Self| {
            let state = registry.credentials.state();
            state.tokens.get(&token.id).cloned()
        };
        let mut stored = known(self);
        if stored.is_none() && self.replica.is_some() {
            // It may have been made at another replica a moment ago.
            self.read_credentials().await?;
            stored = known(self);
        }
        if !ours(self) {
            return Err(CredentialError::OtherMesh(token.authority));
        }
        // One answer for both, so that nobody learns which ids there are.
        stored
            .filter(|stored| stored.secret.is_of(&token.secret))
            .ok_or(CredentialError::UnknownToken)
    }

    /// The authority that signs, with its key.
    pub(crate) fn signer(&self) -> Result<Arc<Authority>, CredentialError> {
        let Some(signs) = self.credentials.signs() else {
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
) -> Result<(Option<String>, Vec<Known>), CredentialError> {
    let Some(name) = token.only_hostname.clone() else {
        return Ok((None, Vec::new()));
    };
    let by_id = change.node_with_id(&name).await?;
    let named = match by_id {
        Some(node) => vec![node],
        None => change.nodes_named(&name).await?,
    };
    Ok((Some(name), named))
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
mod tests {
    use mesh_credentials::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    fn node(node_id: &str, has_credentials: bool) -> Known {
        Known {
            node_id: node_id.to_owned(),
            has_credentials,
            up: true,
        }
    }

    #[test]
    fn a_nodes_key_is_worth_something_only_while_it_has_no_credentials() {
        let (with, without) = (node("a", true), node("b", false));
        assert_eq!(
            decide(None, &[], Some(&without)).unwrap(),
            Becomes::Node(&without)
        );
        assert_eq!(decide(None, &[], Some(&with)).unwrap(), Becomes::New);
        assert_eq!(decide(None, &[], None).unwrap(), Becomes::New);
    }

    #[test]
    fn a_token_for_a_node_makes_its_bearer_that_node_whatever_key_it_shows() {
        let (meant, other) = (node("a", true), node("b", false));
        let named = [meant.clone()];
        assert_eq!(
            decide(Some("alpha"), &named, Some(&other)).unwrap(),
            Becomes::Node(&meant)
        );
        assert_eq!(decide(Some("alpha"), &[], None).unwrap(), Becomes::New);
        let several = [meant, other];
        let error = decide(Some("alpha"), &several, None).unwrap_err();
        assert!(error.to_string().contains("a, b"), "{error}");
    }

    proptest! {
        #[test]
        fn a_token_lets_in_exactly_while_it_holds(
            expires_at in 0..20_i64, now in 0..20_i64, revoked in any::<bool>(),
        ) {
            let token = StoredToken {
                token_id: "t".to_owned(),
                secret: Secret::make().unwrap().digest(),
                uses: 3,
                uses_left: 3,
                expires_at,
                only_hostname: None,
                created_at: 0,
                created_by: String::new(),
                revoked_at: revoked.then_some(0),
            };
            let holds = !revoked && now < expires_at;
            prop_assert_eq!(check(&token, now).is_ok(), holds);
        }
    }
}
