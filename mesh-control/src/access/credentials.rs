//! What has to be known of the cluster's credentials to decide about a request.

use mesh_credentials::certificate::Presented;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::secret::SecretDigest;
use mesh_rest::operator::Role;
use mesh_rest::security::Stage;
use tokio::sync::watch;
use tracing::warn;

use super::origin::Source;

/// What a node shows that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeCredential {
    /// Its key. A certificate for another one is of a host that was this node before.
    pub key: KeyDigest,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// By what an operator is known.
#[derive(Debug, Clone)]
pub struct OperatorCredential {
    /// Of the token's secret.
    pub digest: SecretDigest,
    /// What the operator may do.
    pub role: Role,
    /// Who it is, for the audit.
    pub name: String,
    /// Whether the token was revoked.
    pub revoked: bool,
}

/// What was refused, for the audit: told as seldom as it is logged.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// From where.
    pub source: Source,
    /// Who it was, as far as it is known: `node ID`, `operator ID`, `nobody`.
    pub who: String,
    /// The method and path, or what else was tried.
    pub what: String,
    /// The kind of problem that it was answered, or a word of why.
    pub why: String,
    /// How many such there were since the last word of them.
    pub times: u64,
}

/// What is known of them, in memory: every request asks, so that no answer may take long.
pub trait Credentials: Send + Sync {
    /// How far the cluster is secured.
    fn stage(&self) -> Stage;

    /// Whether any node or operator was ever given credentials.
    fn has_credentials(&self) -> bool;

    /// That of a node, also one that was revoked. `None`: there is no such node, or it never had one.
    fn node(&self, node_id: &str) -> Option<NodeCredential>;

    /// The id of the node, also one that was revoked, that is known by what a certificate of one's own calls it; `name` is
    /// the digest of that. `None`: none was yet.
    fn node_called(&self, name: KeyDigest) -> Option<String>;

    /// Whether the authority that signed a certificate of the mesh is trusted now. That it signed it was verified when the
    /// connection began, which may be long ago.
    fn trusts(&self, certificate: &Presented) -> bool;

    /// Whether the authority that signed a certificate of the mesh is the one that signs now.
    fn signs(&self, certificate: &Presented) -> bool;

    /// That of an operator, also one that was revoked.
    fn operator(&self, id: &str) -> Option<OperatorCredential>;

    /// Another number whenever somebody who was let in may not be any more: a revocation, another key, another stage.
    /// Requests that wait are looked at again then. Each change is seen by the calls above before it is told here.
    fn changes(&self) -> watch::Receiver<u64>;

    /// A request was refused, to be logged, and kept where there is an audit. It must not wait.
    fn refused(&self, refusal: &Refusal) {
        let Refusal { who, what, why, .. } = refusal;
        let (source, times) = (refusal.source, refusal.times);
        warn!(name: "request-refused", %source, who, what, why, times, "refused");
    }
}
