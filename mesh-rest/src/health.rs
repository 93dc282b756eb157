//! Whether the control plane answers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The body of `GET /health`, `/livez` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Always `ok`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^ok$", example = "ok"))]
    pub status: Cow<'static, str>,
}

/// The one answer there is; what is not well is a problem document.
pub const OK: Health = Health {
    status: Cow::Borrowed("ok"),
};
