//! Why a credential is not given, taken or changed.

use std::sync::Arc;
use std::time::Duration;

use mesh_credentials::authority::AuthorityError;
use mesh_credentials::join_token::JoinTokenError;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::secret::NoRandomNumbers;

use crate::access::Refused;
use crate::store::{MeantNode, StoreError};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The text is no token.
    #[error(transparent)]
    NoToken(#[from] JoinTokenError),
    /// It is for another mesh, or was made before its authority was replaced.
    #[error(
        "the join token is for the authority {0}, which is none of this mesh (any more); make a new one here: \
         quilt-mesh-control token create"
    )]
    OtherMesh(KeyDigest),
    /// There is none with this id and secret.
    #[error(
        "there is no such join token here: was it made in this mesh, and copied whole? quilt-mesh-control token list shows \
         those there are"
    )]
    UnknownToken,
    /// It held until a moment ago, or long ago.
    #[error("the join token {id} ended {} s ago; make a new one: quilt-mesh-control token create", .now - .expired_at)]
    TokenExpired {
        /// Which.
        id: String,
        /// When, in Unix seconds.
        expired_at: i64,
        /// Unix seconds.
        now: i64,
    },
    /// An operator ended it.
    #[error("the join token {0} was revoked; make a new one: quilt-mesh-control token create")]
    TokenRevoked(String),
    /// As many hosts joined by it as could.
    #[error(
        "the join token {id} was for {uses} {}, and is used up; make a new one: quilt-mesh-control token create",
        match .uses { 1 => "host", _ => "hosts" }
    )]
    TokenUsedUp {
        /// Which.
        id: String,
        /// How many hosts it was for.
        uses: u32,
    },
    /// A token is for one node, and several have its name.
    #[error(
        "{} nodes have the name {name:?}: make a token for the id of the one that is meant (token create --node ID): {}",
        .nodes.len(), listed(.nodes)
    )]
    Ambiguous {
        /// The name.
        name: String,
        /// The nodes.
        nodes: Vec<MeantNode>,
    },
    /// What the host wants signed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A renewal with another key than the certificate's.
    #[error(
        "the request is for another key than the certificate's; a new key needs a new join token"
    )]
    OtherKey,
    /// The key was given certificates too often.
    #[error("this host was given certificates too often; a renewal is due once in days")]
    TooOften(Duration),
    /// The node was revoked, or is known by another key.
    #[error(
        "the node's credentials were revoked, or a host that joined later has taken its place; let it join again: \
         quilt-mesh-control token create --node NAME"
    )]
    NodeRevoked,
    /// This control plane cannot sign.
    #[error("this control plane cannot sign certificates: {0}")]
    NoAuthority(String),
    /// What is asked for has no such form.
    #[error("{field}: {rule}")]
    Field {
        /// The field.
        field: &'static str,
        /// The rule.
        rule: String,
    },
    /// There is nothing to revoke.
    #[error("there is no {what} {id:?} that could be revoked")]
    NothingToRevoke {
        /// A word for what.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Who asks was let in when the request began, and may not any more.
    #[error("{}", .0.detail)]
    NotAnyMore(Refused),
    /// What is asked for does not come next.
    #[error("{0}")]
    NotNow(String),
    /// The system.
    #[error(transparent)]
    NoRandomNumbers(#[from] NoRandomNumbers),
    /// The database.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

/// Nodes that a message names.
const MOST_LISTED: usize = 10;

fn listed(nodes: &[MeantNode]) -> String {
    let mut listed: Vec<String> = nodes
        .iter()
        .take(MOST_LISTED)
        .map(MeantNode::to_string)
        .collect();
    if nodes.len() > MOST_LISTED {
        listed.push("…".to_owned());
    }
    listed.join(", ")
}

impl From<StoreError> for CredentialError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Arc<StoreError>> for CredentialError {
    fn from(error: Arc<StoreError>) -> Self {
        Self::Store(error)
    }
}
