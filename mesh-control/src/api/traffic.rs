//! Who sends how much to whom.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use mesh_rest::traffic::TrafficMatrix;

use super::openapi::WhenReading;
use super::problem::Problem;
use crate::http::{answer, body};
use crate::registry::Registry;
use crate::traffic::matrix;

/// Who sends how much to whom
///
/// The latest report of every node, as it counts itself since its data plane was set up, whichever replica it reported
/// to; `report_age_ms` says how old it is. Where there are several replicas, a report reaches the others within some
/// seconds. A control plane of its own that was restarted knows of a node's traffic when the node has sent its next
/// report.
#[utoipa::path(get, path = "/api/traffic", tag = "traffic", operation_id = "traffic",
    responses((status = 200, body = TrafficMatrix<'_>), WhenReading))]
pub(super) async fn matrix(State(registry): State<Arc<Registry>>) -> Result<Response, Problem> {
    let place = body::within_deadline(answer::stream()).await?;
    body::within_deadline(registry.refresh()).await??;
    // Before the reports: of a node that has left by then there are none.
    let nodes = registry.nodes();
    let reports = body::within_deadline(registry.latest_reports()).await??;
    Ok(matrix::answer(nodes, reports, registry, place))
}
