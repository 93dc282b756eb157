//! Join tokens and operators: made, listed, revoked.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use mesh_rest::join_token::{CreateToken, CreatedToken, TokenList};
use mesh_rest::operator::{CreateOperator, CreatedOperator, OperatorList};

use super::asker::Asker;
use super::openapi::{WhenCreating, WhenRevoking};
use super::problem::Problem;
use super::refusal::object;
use crate::http::body;
use crate::registry::Registry;

/// Make a join token
///
/// The answer is the only time that it is shown.
#[utoipa::path(post, path = "/api/tokens", tag = "credentials", operation_id = "create_token",
    request_body = CreateToken, responses((status = 200, body = CreatedToken), WhenCreating))]
pub(super) async fn create(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<Json<CreatedToken>, Problem> {
    let asker = Asker::of(&request);
    let json = body::json(request).await?;
    let create: CreateToken = object(json)?;
    let created = registry.create_token(&create, &asker.doer);
    Ok(Json(body::within_deadline(created).await??))
}

/// The join tokens there are
#[utoipa::path(get, path = "/api/tokens", tag = "credentials", operation_id = "tokens",
    responses((status = 200, body = TokenList)))]
pub(super) async fn list(State(registry): State<Arc<Registry>>) -> Json<TokenList> {
    Json(registry.tokens())
}

/// End a join token
///
/// Nodes that joined by it stay.
#[utoipa::path(post, path = "/api/tokens/{id}/revoke", tag = "credentials", operation_id = "revoke_token",
    params(("id" = String, Path, description = "The token's id")),
    responses((status = 200, description = "Ended; the body is empty"), WhenRevoking))]
pub(super) async fn revoke(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let asker = Asker::of(&request);
    body::bytes(request).await?;
    body::within_deadline(registry.revoke_token(&id, &asker.doer)).await??;
    Ok(StatusCode::OK)
}

/// Make an operator
///
/// The answer is the only time that the token is shown.
#[utoipa::path(post, path = "/api/operators", tag = "credentials", operation_id = "create_operator",
    request_body = CreateOperator, responses((status = 200, body = CreatedOperator), WhenCreating))]
pub(super) async fn create_operator(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<Json<CreatedOperator>, Problem> {
    let asker = Asker::of(&request);
    let json = body::json(request).await?;
    let create: CreateOperator = object(json)?;
    let created = registry.create_operator(&create, &asker.doer);
    Ok(Json(body::within_deadline(created).await??))
}

/// The operators there are
#[utoipa::path(get, path = "/api/operators", tag = "credentials", operation_id = "operators",
    responses((status = 200, body = OperatorList)))]
pub(super) async fn operators(State(registry): State<Arc<Registry>>) -> Json<OperatorList> {
    Json(registry.operators())
}

/// Let an operator do nothing any more
#[utoipa::path(post, path = "/api/operators/{id}/revoke", tag = "credentials", operation_id = "revoke_operator",
    params(("id" = String, Path, description = "The operator's id")),
    responses((status = 200, description = "Revoked; the body is empty"), WhenRevoking))]
pub(super) async fn revoke_operator(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let asker = Asker::of(&request);
    body::bytes(request).await?;
    body::within_deadline(registry.revoke_operator(&id, &asker.doer)).await??;
    Ok(StatusCode::OK)
}
