//! What is stored of credentials, and how it is read: all of it at first, then what changed.

use std::str::FromStr;

pub use mesh_credentials::authority_state::AuthorityState;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::secret::SecretDigest;
use mesh_credentials::trust::{Trust, Trusted};
use mesh_rest::operator::Role;
use mesh_rest::security::Stage;
use sqlx::AnyConnection;

use super::{Store, StoreError, Transaction};

/// By which key a node is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCredential {
    /// The node.
    pub node_id: String,
    /// Its key.
    pub key: KeyDigest,
    /// The authority that signed its latest certificate.
    pub issuer: KeyDigest,
    /// Until when that holds, in Unix seconds.
    pub expires_at: i64,
    /// The only name by which it may register.
    pub only_hostname: Option<String>,
    /// Whether it may no longer do anything.
    pub revoked: bool,
}

/// What lets hosts join.
#[derive(Debug, Clone)]
pub struct StoredToken {
    /// By which it is found.
    pub token_id: String,
    /// By which its secret is recognised.
    pub secret: SecretDigest,
    /// How many hosts could join by it.
    pub uses: u32,
    /// How many still can.
    pub uses_left: u32,
    /// Until when, in Unix seconds.
    pub expires_at: i64,
    /// The name, or the id, of the node that it is made for.
    pub only_hostname: Option<String>,
    /// That node's id, if there was one when it was made.
    pub only_node_id: Option<String>,
    /// Since when, in Unix seconds.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
    /// When it was revoked, in Unix seconds.
    pub revoked_at: Option<i64>,
    /// The authority that it names; `None`: an earlier version made it, and did not note which.
    pub authority: Option<KeyDigest>,
}

/// A person, or a person's program.
#[derive(Debug, Clone)]
pub struct StoredOperator {
    /// By which it is found.
    pub operator_id: String,
    /// Who it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// By which its secret is recognised.
    pub secret: SecretDigest,
    /// Since when, in Unix seconds.
    pub created_at: i64,
    /// When it was revoked, in Unix seconds.
    pub revoked_at: Option<i64>,
}

/// An authority as it is stored: without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuthority {
    /// Its certificate.
    pub trusted: Trusted,
    /// What it does.
    pub state: AuthorityState,
}

/// What changed of credentials, and all of what is little.
#[derive(Debug, Clone)]
pub struct CredentialChanges {
    /// Of what is read.
    pub revision: i64,
    /// Whether it is all there is, and not what changed.
    pub is_whole: bool,
    /// How far the cluster is secured.
    pub stage: Stage,
    /// Whether anybody ever had credentials, or was to get some.
    pub had_credentials: bool,
    /// All authorities, the one that signs first.
    pub authorities: Vec<StoredAuthority>,
    /// Keys of those whose place another has taken, and that are trusted no longer.
    pub ended: Vec<KeyDigest>,
    /// Nodes' that changed or are new.
    pub nodes: Vec<NodeCredential>,
    /// Tokens that changed or are new.
    pub tokens: Vec<StoredToken>,
    /// Operators that changed or are new.
    pub operators: Vec<StoredOperator>,
}

pub(super) type NodeRow = (String, String, String, i64, Option<String>, Option<i64>);
type TokenRow = (
    String,
    String,
    i64,
    i64,
    i64,
    Option<String>,
    i64,
    String,
    Option<i64>,
    Option<String>,
    Option<String>,
);

impl Store {
    /// Reads what changed of credentials after `revision`; after -1 everything did. `None`: nothing did.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer or holds what cannot be.
    pub async fn credentials_since(
        &self,
        revision: i64,
    ) -> Result<Option<CredentialChanges>, StoreError> {
        let mut transaction = Transaction::reading(&self.pool, self.dialect()).await?;
        let changes = transaction.credentials_since(revision, 0).await?;
        transaction.roll_back().await?;
        Ok(changes)
    }
}

/// Credentials as they are when a change begins, read on its own connection: who has the lock of changes and waits for
/// another connection may wait for those who wait for the lock.
pub struct CredentialsBefore<'a> {
    pub(super) transaction: &'a mut Transaction,
    pub(super) revision: i64,
    /// By how much the change has raised it.
    pub(super) raised_by: i64,
}

impl CredentialsBefore<'_> {
    /// Of them; nobody else raises it until the change ends.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// See [`Store::credentials_since`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn since(&mut self, revision: i64) -> Result<Option<CredentialChanges>, StoreError> {
        let raised_by = self.raised_by;
        self.transaction
            .credentials_since(revision, raised_by)
            .await
    }
}

impl Transaction {
    /// What [`Store::credentials_since`] reads, as this transaction sees it. `raised_by` is by how much it has raised the
    /// revision itself, and changed nothing of credentials yet.
    pub(super) async fn credentials_since(
        &mut self,
        revision: i64,
        raised_by: i64,
    ) -> Result<Option<CredentialChanges>, StoreError> {
        let row: Option<(i64, String, i64)> = sqlx::query_as(
            "SELECT credentials_revision, stage, had_credentials FROM cluster WHERE id = 1",
        )
        .fetch_optional(self.connection()?)
        .await?;
        let Some((current, stage, had_credentials)) = row else {
            return Err(super::history::emptied(self.dialect()));
        };
        let current = current - raised_by;
        if current == revision {
            return Ok(None);
        }
        // It went back: what is known is of another history.
        let revision = if current < revision { -1 } else { revision };
        let authorities = authorities(self.connection()?).await?;
        let ended: Vec<String> = sqlx::query_scalar("SELECT key_digest FROM ended_authorities")
            .fetch_all(self.connection()?)
            .await?;
        let nodes: Vec<NodeRow> = sqlx::query_as(
            "SELECT node_id, key_digest, issuer, expires_at, only_hostname, revoked_at \
             FROM node_credentials WHERE revision > $1",
        )
        .bind(revision)
        .fetch_all(self.connection()?)
        .await?;
        let tokens: Vec<TokenRow> = sqlx::query_as(
            "SELECT token_id, secret_digest, uses, uses_left, expires_at, only_hostname, created_at, \
             created_by, revoked_at, only_node_id, authority FROM join_tokens WHERE revision > $1",
        )
        .bind(revision)
        .fetch_all(self.connection()?)
        .await?;
        let operators: Vec<(String, String, String, String, i64, Option<i64>)> = sqlx::query_as(
            "SELECT operator_id, name, role, secret_digest, created_at, revoked_at \
             FROM operators WHERE revision > $1",
        )
        .bind(revision)
        .fetch_all(self.connection()?)
        .await?;
        Ok(Some(CredentialChanges {
            revision: current,
            is_whole: revision == -1,
            stage: stage_of(&stage)?,
            had_credentials: had_credentials != 0,
            authorities,
            ended: ended
                .iter()
                .map(|key| read("the key", "an authority", key))
                .collect::<Result<_, _>>()?,
            nodes: nodes.into_iter().map(node).collect::<Result<_, _>>()?,
            tokens: tokens.into_iter().map(token).collect::<Result<_, _>>()?,
            operators: operators
                .into_iter()
                .map(operator)
                .collect::<Result<_, _>>()?,
        }))
    }
}

/// Every authority that is trusted, the one that signs first.
pub(super) async fn authorities(
    connection: &mut AnyConnection,
) -> Result<Vec<StoredAuthority>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT certificate, state FROM authorities \
         ORDER BY CASE state WHEN 'signs' THEN 0 ELSE 1 END, key_digest",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(authority).collect()
}

pub(super) fn stage_of(text: &str) -> Result<Stage, StoreError> {
    [Stage::Open, Stage::Moving, Stage::Secured]
        .into_iter()
        .find(|stage| stage.as_str() == text)
        .ok_or_else(|| StoreError::Damaged(format!("the cluster's stage is {text:?}")))
}

fn read<T: FromStr>(what: &str, whose: &str, text: &str) -> Result<T, StoreError> {
    text.parse()
        .map_err(|_| StoreError::Damaged(format!("{what} of {whose} is {text:?}")))
}

fn count(whose: &str, number: i64) -> Result<u32, StoreError> {
    u32::try_from(number)
        .map_err(|_| StoreError::Damaged(format!("the token {whose} has {number} uses")))
}

fn authority((certificate, state): (String, String)) -> Result<StoredAuthority, StoreError> {
    let damaged = |why: String| StoreError::Damaged(format!("an authority's certificate: {why}"));
    let trust = Trust::from_pem(&certificate).map_err(|error| damaged(error.to_string()))?;
    let trusted = trust.iter().next().cloned();
    let trusted = trusted.ok_or_else(|| damaged("it is empty".to_owned()))?;
    let state = state
        .parse()
        .map_err(|_| damaged(format!("its state is {state:?}")))?;
    Ok(StoredAuthority { trusted, state })
}

pub(super) fn node(
    (node_id, key, issuer, expires_at, only_hostname, revoked_at): NodeRow,
) -> Result<NodeCredential, StoreError> {
    Ok(NodeCredential {
        key: read("the key", &node_id, &key)?,
        issuer: read("the issuer", &node_id, &issuer)?,
        node_id,
        expires_at,
        only_hostname,
        revoked: revoked_at.is_some(),
    })
}

fn token(
    (
        token_id,
        secret,
        uses,
        uses_left,
        expires_at,
        only_hostname,
        created_at,
        created_by,
        revoked_at,
        only_node_id,
        authority,
    ): TokenRow,
) -> Result<StoredToken, StoreError> {
    let authority = authority.map(|key| read("the authority", &token_id, &key));
    Ok(StoredToken {
        authority: authority.transpose()?,
        secret: secret
            .parse()
            .map_err(|_| StoreError::Damaged(format!("the digest of token {token_id}")))?,
        uses: count(&token_id, uses)?,
        uses_left: count(&token_id, uses_left)?,
        token_id,
        expires_at,
        only_hostname,
        only_node_id,
        created_at,
        created_by,
        revoked_at,
    })
}

fn operator(
    (operator_id, name, role, secret, created_at, revoked_at): (
        String,
        String,
        String,
        String,
        i64,
        Option<i64>,
    ),
) -> Result<StoredOperator, StoreError> {
    Ok(StoredOperator {
        secret: secret
            .parse()
            .map_err(|_| StoreError::Damaged(format!("the digest of operator {operator_id}")))?,
        // The schema admits two words, and the lesser is the safe one.
        role: match role.as_str() {
            "operate" => Role::Operate,
            _ => Role::Read,
        },
        operator_id,
        name,
        created_at,
        revoked_at,
    })
}
