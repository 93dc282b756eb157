//! Who did what, from where.

use serde::{Deserialize, Serialize};

/// The answer to `GET /api/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditList {
    /// The latest first.
    pub entries: Vec<AuditLine>,
}

/// Something that somebody did, or tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditLine {
    /// When, in Unix seconds; of what is counted, when it was first.
    pub at: i64,
    /// `admin`, `operator NAME (ID)`, `node ID`, `token ID` or `nobody`.
    pub who: String,
    /// From where: an address, or `admin socket`.
    pub source: String,
    /// What.
    pub action: String,
    /// On what.
    pub subject: String,
    /// `done`, or why not.
    pub outcome: String,
    /// How often.
    pub times: i64,
}
