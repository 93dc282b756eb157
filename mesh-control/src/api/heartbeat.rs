//! Heartbeats.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use mesh_rest::heartbeat::Heartbeat;

use super::openapi::WhenBeating;
use super::problem::Problem;
use super::refusal::of_sign;
use super::token::{NextToken, token};
use crate::http::body;
use crate::registry::Registry;
use crate::traffic::report::Report;

/// Tell that a node lives
///
/// The body is optional: what is not `application/json` is not read. JSON is the state of the node's data plane and
/// its traffic with each peer, the latest of which `GET /api/traffic` shows, and the node's MTU, which the node list
/// shows within some seconds. A heartbeat that is refused has not
/// happened. A 404 means that the node has to register again.
#[utoipa::path(
    post,
    path = "/api/nodes/{id}/heartbeat",
    tag = "nodes",
    params(("id" = String, Path, description = "The node's id")),
    request_body = Option<Heartbeat>,
    responses((status = 200, description = "Taken; the body is empty", headers(
        ("quilt-mesh-token" = String, description = "To be sent, in the same header, with the next heartbeat or registration"),
        ("quilt-mesh-authorities" = String, description = "Another value than before: renew the certificate"),
        ("quilt-mesh-check" = Option<String>, description = "Another value than before: ask the peers, and tell in `check` what came of it"))), WhenBeating)
)]
pub(super) async fn heartbeat(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<(NextToken, StatusCode), Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let token = token(request.headers());
    // Read first: a heartbeat that is refused has not happened.
    let report = match body::report(request).await? {
        Some(body) => Some(Report::read(body).await?),
        None => None,
    };
    let overlay_mtu = report.as_ref().and_then(|report| report.overlay_mtu);
    let beat = registry.heartbeat(&id, overlay_mtu, token);
    let next = of_sign(body::within_deadline(beat).await?, &id)?;
    if let Some(mut report) = report {
        if let Some(check) = report.check.take() {
            registry.checks.keep(id.clone().into(), check);
        }
        registry.keep_report(id, report);
    }
    Ok((NextToken(next), StatusCode::OK))
}
