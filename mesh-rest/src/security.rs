//! How far a cluster is secured.

use serde::{Deserialize, Serialize};

/// What is let in without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Everybody, as before there were credentials. A cluster whose database is older than they are.
    Open,
    /// The nodes that were there before, until each has a certificate; no new ones, and no operators.
    Moving,
    /// Nobody.
    Secured,
}

impl Stage {
    /// As it stands in JSON and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Moving => "moving",
            Self::Secured => "secured",
        }
    }
}

/// The answer to `GET /api/security`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Security {
    /// How far it is.
    pub stage: Stage,
    /// Whether anybody ever had credentials, or was to get some: from then on a secured cluster lets nobody in without.
    pub has_credentials: bool,
    /// Why somebody is let in without credentials; absent: nobody is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<String>,
    /// The mesh, where there is an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_id: Option<String>,
    /// Nodes with a certificate.
    pub nodes_with_credentials: u32,
    /// Hostnames of those without, at most 100.
    pub nodes_without_credentials: Vec<String>,
    /// How many those are.
    pub nodes_without_credentials_count: u32,
    /// Names and ids of nodes that the database got to know by their certificates, at most 100: they joined before it was
    /// lost, or after the backup that it was restored from.
    #[serde(default)]
    pub nodes_by_certificate_alone: Vec<String>,
    /// How many those are.
    #[serde(default)]
    pub nodes_by_certificate_alone_count: u32,
    /// Hostnames of those of them that are up, at most 100.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(default)]
    pub nodes_up_without_credentials: Vec<String>,
    /// How many those are.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(default)]
    pub nodes_up_without_credentials_count: u32,
}

/// The body of `POST /api/security/stage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeStage {
    /// How far it shall be.
    pub stage: Stage,
    /// Also while nodes that are up have no credentials, and would be shut out.
    #[serde(default)]
    pub force: bool,
}

/// A step by which one authority takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// The next one is made, and trusted.
    Prepare,
    /// It signs.
    Activate,
    /// The one before is trusted no longer.
    Finish,
}

/// The body of `POST /api/ca/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeRotation {
    /// Which step.
    pub step: Rotation,
    /// Also while nodes are not ready for it, and would be shut out.
    #[serde(default)]
    pub force: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rotated {
    /// The key of the authority that signs, or will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
