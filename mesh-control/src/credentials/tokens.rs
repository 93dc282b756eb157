//! Join tokens: made, listed, revoked.

use mesh_credentials::join_token::JoinToken;
use mesh_credentials::secret::Secret;
use mesh_rest::join_token::{
    CreateToken, CreatedToken, LONGEST_TTL_SECONDS, MOST_USES, TokenEntry, TokenList,
};
use mesh_rest::registration::LONGEST_HOSTNAME;

use uuid::Uuid;

use super::audit::Doer;
use super::refusal::CredentialError;
use super::short_id;
use crate::registry::{Registry, unix_seconds};
use crate::store::{CredentialChange, StoredToken};

/// How long a token holds unless told otherwise, in seconds.
const TTL: u64 = 60 * 60;

impl Registry {
    /// Makes a join token.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn create_token(
        &self,
        create: &CreateToken,
        doer: &Doer,
    ) -> Result<CreatedToken, CredentialError> {
        let (uses, ttl) = terms(create)?;
        let secret = Secret::make()?;
        let now = unix_seconds();
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        // Without one that signs, nobody could join by it.
        let authority = self.signer_in(&mut change).await?.trusted().key();
        self.check_first(&mut change, create.force).await?;
        let token = JoinToken {
            authority,
            id: short_id(),
            secret,
        };
        let mut stored = StoredToken {
            token_id: token.id.clone(),
            secret: token.secret.digest(),
            uses,
            uses_left: uses,
            expires_at: now.saturating_add(ttl),
            only_hostname: create.node.clone(),
            only_node_id: None,
            created_at: now,
            created_by: doer.who.clone(),
            revoked_at: None,
            authority: Some(authority),
        };
        if let Some(name) = &create.node {
            stored.only_node_id = match meant(&mut change, name).await {
                Ok(node_id) => node_id,
                Err(error) => {
                    change.roll_back().await?;
                    return Err(error);
                }
            };
        }
        let subject = match (&create.node, &stored.only_node_id) {
            (Some(name), Some(id)) if id != name => {
                format!("token {} for node {name} ({id})", token.id)
            }
            (Some(name), _) => format!("token {} for node {name}", token.id),
            (None, _) => format!("token {} for {uses}", token.id),
        };
        change.add_token(&stored).await?;
        change
            .keep_audit(&doer.did("create token", &subject))
            .await?;
        self.finish_credentials(change).await?;
        Ok(CreatedToken {
            id: token.id.clone(),
            token: token.to_string(),
            expires_at: stored.expires_at,
            node_id: stored.only_node_id,
        })
    }

    /// The tokens there are, the latest first.
    #[must_use]
    pub fn tokens(&self) -> TokenList {
        let state = self.credentials.state();
        let signs = state.signs();
        let mut tokens: Vec<TokenEntry> = state
            .tokens
            .values()
            .map(|token| TokenEntry {
                id: token.token_id.clone(),
                uses_left: token.uses_left,
                uses: token.uses,
                expires_at: token.expires_at,
                node: token.only_hostname.clone(),
                node_id: token.only_node_id.clone(),
                created_at: token.created_at,
                created_by: token.created_by.clone(),
                revoked_at: token.revoked_at,
                worthless: token.authority.is_some() && token.authority != signs,
            })
            .collect();
        tokens.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        TokenList { tokens }
    }

    /// Ends a join token. Who joined by it stays.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn revoke_token(&self, id: &str, doer: &Doer) -> Result<(), CredentialError> {
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        if !change.revoke_token(id, unix_seconds()).await? {
            change.roll_back().await?;
            let id = id.to_owned();
            return Err(CredentialError::NothingToRevoke {
                what: "join token",
                id,
            });
        }
        let subject = format!("token {id}");
        change
            .keep_audit(&doer.did("revoke token", &subject))
            .await?;
        self.finish_credentials(change).await?;
        Ok(())
    }
}

/// The id of the node that is meant by a name or an id; `None`: there is none of that name, and whoever brings the token is
/// a new one.
///
/// Found out now, by who makes the token: until it is used, any node may call itself so.
async fn meant(
    change: &mut CredentialChange,
    name: &str,
) -> Result<Option<String>, CredentialError> {
    let mut nodes = change.meant_by(name).await?;
    match nodes.len() {
        // No host is called so.
        0 if Uuid::try_parse(name).is_ok() => Err(CredentialError::Field {
            field: "node",
            rule: format!("no node has the id {name}; see quilt-mesh-control node list"),
        }),
        0 | 1 => Ok(nodes.pop().map(|node| node.node_id)),
        _ => {
            let name = name.to_owned();
            let ambiguous = CredentialError::Ambiguous { name, nodes };
            Err(CredentialError::Field {
                field: "node",
                rule: ambiguous.to_string(),
            })
        }
    }
}

/// For how many hosts, and how long in seconds.
fn terms(create: &CreateToken) -> Result<(u32, i64), CredentialError> {
    let wrong = |field, rule: String| Err(CredentialError::Field { field, rule });
    let uses = create.uses.unwrap_or(1);
    if !(1..=MOST_USES).contains(&uses) {
        return wrong("uses", format!("{uses} is not from 1 to {MOST_USES}"));
    }
    let ttl = create.ttl_seconds.unwrap_or(TTL);
    if !(1..=LONGEST_TTL_SECONDS).contains(&ttl) {
        let rule = format!("{ttl} is not from 1 to {LONGEST_TTL_SECONDS}, a year");
        return wrong("ttl_seconds", rule);
    }
    if let Some(node) = &create.node {
        let length = node.chars().count();
        if !(1..=LONGEST_HOSTNAME).contains(&length) || node.chars().any(char::is_control) {
            let rule =
                format!("a name is 1 to {LONGEST_HOSTNAME} characters without control characters");
            return wrong("node", rule);
        }
        if uses != 1 {
            let rule = "a token for one node is for one use".to_owned();
            return wrong("uses", rule);
        }
    }
    Ok((uses, i64::try_from(ttl).unwrap_or(i64::MAX)))
}
