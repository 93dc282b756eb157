//! What is not as it should be in the cluster.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use mesh_rest::findings::ClusterFindings;

use super::openapi::WhenReading;
use super::problem::Problem;
use crate::http::{answer, body};
use crate::registry::Registry;

/// What is not as it should be
///
/// What the control plane sees itself, and what the nodes reported last; `report_age_ms` says how long ago. Each code is
/// explained in docs/PROBLEMS.md.
#[utoipa::path(get, path = "/api/findings", tag = "findings", operation_id = "findings",
    responses((status = 200, body = ClusterFindings<'_>), WhenReading))]
pub(super) async fn list(State(registry): State<Arc<Registry>>) -> Result<Response, Problem> {
    let _place = body::within_deadline(answer::stream()).await?;
    body::within_deadline(registry.refresh()).await??;
    let findings = body::within_deadline(registry.findings()).await??;
    let _turn = body::within_deadline(answer::turn()).await?;
    Ok(answer::json(answer::keep(answer::serialise(&findings)?)))
}
