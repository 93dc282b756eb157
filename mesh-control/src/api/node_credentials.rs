//! What nodes are known by: listed, revoked.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use mesh_rest::node_credential::NodeCredentialList;

use super::asker::Asker;
use super::openapi::WhenRevoking;
use super::problem::Problem;
use crate::http::body;
use crate::registry::Registry;

/// Every node, and what it is known by
///
/// Also nodes that have a certificate and have not registered by it.
#[utoipa::path(get, path = "/api/node-credentials", tag = "credentials", operation_id = "node_credentials",
    responses((status = 200, body = NodeCredentialList)))]
pub(super) async fn list(State(registry): State<Arc<Registry>>) -> Json<NodeCredentialList> {
    Json(registry.node_credentials())
}

/// Let a node do nothing any more
///
/// Its certificate is worth nothing from now on, and what it waits for ends. It keeps its subnet, and its peers keep it
/// while its packets arrive: release the subnet to take it out. It comes back by a token that is made for it.
#[utoipa::path(post, path = "/api/nodes/{id}/revoke", tag = "credentials", operation_id = "revoke_node",
    params(("id" = String, Path, description = "The node's id")),
    responses((status = 200, description = "Revoked; the body is empty"), WhenRevoking))]
pub(super) async fn revoke(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let asker = Asker::of(&request);
    body::bytes(request).await?;
    body::within_deadline(registry.revoke_node(&id, &asker.doer)).await??;
    Ok(StatusCode::OK)
}
