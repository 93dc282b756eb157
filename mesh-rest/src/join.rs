//! How a host comes by a certificate, which says which node it is.

use serde::{Deserialize, Serialize};

/// The header in answers to heartbeats and renewals: another value than before means that other authorities are
/// trusted, or that another one signs. A node then renews its certificate, and learns of them.
pub const AUTHORITIES_HEADER: &str = "quilt-mesh-authorities";

/// The header of every answer of a control plane that lets somebody in without credentials: why.
pub const INSECURE_HEADER: &str = "quilt-mesh-insecure";

/// The body of `POST /api/join`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Join {
    /// The join token.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 512))]
    pub token: String,
    /// A certificate request (PKCS #10, RFC 2986) in PEM, with an ECDSA key on P-256. Only the key in it counts.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4096))]
    pub request: String,
    /// The node key that the host registered with before it had a certificate: it stays the node that it was.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 128, pattern = "^[!-~]+$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_key: Option<String>,
}

/// Without what nobody else may know.
impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Join")
    }
}

/// The body of `POST /api/renew`, sent over TLS with the certificate that is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renew {
    /// A certificate request as in [`Join`], with the key of the certificate.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4096))]
    pub request: String,
}

/// The answer to both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Joined {
    /// Which node the host is.
    pub node_id: String,
    /// Of which mesh.
    pub mesh_id: String,
    /// The certificate that says so, in PEM.
    pub certificate: String,
    /// The authorities that are trusted, in PEM, one after another.
    pub authorities: String,
    /// What [`AUTHORITIES_HEADER`] says of them.
    pub authorities_digest: String,
    /// The control plane's clock, in Unix seconds.
    pub time: i64,
}

/// The answer to `GET /api/ca`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityList {
    /// The mesh.
    pub mesh_id: String,
    /// Its authorities, the one that signs first.
    pub authorities: Vec<AuthorityEntry>,
}

/// The longest [`AuthorityKeys::keys`], in bytes: two authorities, of which there are no more at a time, have a third of it.
pub const LONGEST_KEYS: usize = 8192;

/// The answer to `POST /api/ca/export`: who has it may sign.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityKeys {
    /// The certificate and the private key of each authority, in PEM, one after another.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 8192))]
    pub keys: String,
}

/// Without the keys.
impl std::fmt::Debug for AuthorityKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthorityKeys")
    }
}

/// The body of `POST /api/ca/import`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportAuthorities {
    /// What was exported: see [`AuthorityKeys::keys`].
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 8192))]
    pub keys: String,
}

/// Without the keys.
impl std::fmt::Debug for ImportAuthorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ImportAuthorities")
    }
}

/// An authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuthorityEntry {
    /// Its certificate in PEM.
    pub certificate: String,
    /// The SHA-256 of its key in base32, as it stands in join tokens.
    pub key: String,
    /// Whether certificates are signed by it.
    pub signs: bool,
    /// Until when it holds, in Unix seconds.
    pub not_after: i64,
}
