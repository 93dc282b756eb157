//! What the admin socket is for: how far the cluster is secured, its authorities, and who did what.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use mesh_rest::audit::AuditList;
use mesh_rest::join::{AuthorityKeys, ImportAuthorities};
use mesh_rest::security::{ChangeRotation, ChangeStage, Rotated, Rotation, Security};
use serde::Deserialize;

use super::asker::Asker;
use super::openapi::{WhenAuditing, WhenChanging, WhenReading};
use super::problem::Problem;
use super::refusal::object;
use crate::http::body;
use crate::registry::Registry;

/// Entries of the audit that are answered unless asked for otherwise.
const AUDITED: u32 = 100;

/// The most that are.
const MOST_AUDITED: u32 = 10_000;

/// How far the cluster is secured
#[utoipa::path(get, path = "/api/security", tag = "credentials", operation_id = "security",
    responses((status = 200, body = Security), WhenReading))]
pub(super) async fn security(
    State(registry): State<Arc<Registry>>,
) -> Result<Json<Security>, Problem> {
    let insecure = registry.insecure();
    let security = registry.security(insecure);
    Ok(Json(body::within_deadline(security).await??))
}

/// Secure the cluster, step by step
#[utoipa::path(post, path = "/api/security/stage", tag = "credentials", operation_id = "change_stage",
    request_body = ChangeStage, responses((status = 200, description = "Changed; the body is empty"), WhenChanging))]
pub(super) async fn change_stage(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let asker = Asker::of(&request);
    let json = body::json(request).await?;
    let change: ChangeStage = object(json)?;
    let changed = registry.change_stage(&change, &asker.doer);
    body::within_deadline(changed).await??;
    Ok(StatusCode::OK)
}

/// Put another authority in the place of the one that signs, step by step
#[utoipa::path(post, path = "/api/ca/rotate", tag = "credentials", operation_id = "rotate",
    request_body = ChangeRotation, responses((status = 200, body = Rotated), WhenChanging))]
pub(super) async fn rotate(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<Json<Rotated>, Problem> {
    let asker = Asker::of(&request);
    let json = body::json(request).await?;
    let change: ChangeRotation = object(json)?;
    let doer = &asker.doer;
    let rotated = async {
        match change.step {
            Rotation::Prepare => registry.prepare_rotation(doer).await.map(Some),
            Rotation::Activate => registry
                .activate_rotation(change.force, doer)
                .await
                .map(Some),
            Rotation::Finish => registry
                .finish_rotation(change.force, doer)
                .await
                .map(|()| None),
        }
    };
    let key = body::within_deadline(rotated).await??;
    Ok(Json(Rotated {
        key: key.map(|key| key.to_string()),
    }))
}

/// The authorities with their keys, for another replica or a backup
#[utoipa::path(post, path = "/api/ca/export", tag = "credentials", operation_id = "export_authorities",
    responses((status = 200, body = AuthorityKeys), WhenChanging))]
pub(super) async fn export(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<Json<AuthorityKeys>, Problem> {
    let asker = Asker::of(&request);
    body::bytes(request).await?;
    let keys = registry.export_authorities(&asker.doer)?;
    Ok(Json(AuthorityKeys { keys }))
}

/// Take the keys of authorities that another replica made
#[utoipa::path(post, path = "/api/ca/import", tag = "credentials", operation_id = "import_authorities",
    request_body = ImportAuthorities,
    responses((status = 200, description = "Taken; the body is empty"), WhenChanging))]
pub(super) async fn import(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let asker = Asker::of(&request);
    let json = body::json(request).await?;
    let given: ImportAuthorities = object(json)?;
    let imported = registry.import_authorities(&given.keys, &asker.doer);
    body::within_deadline(imported).await??;
    Ok(StatusCode::OK)
}

/// Which entries of the audit are asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only those before this moment, in Unix seconds.
    before: Option<i64>,
    /// At most so many; 100, unless told otherwise, and never more than 10,000.
    #[param(minimum = 1, maximum = 10_000)]
    most: Option<u32>,
}

/// Who did what, from where
#[utoipa::path(get, path = "/api/audit", tag = "credentials", operation_id = "audit", params(AuditQuery),
    responses((status = 200, body = AuditList), WhenAuditing))]
pub(super) async fn audit(
    State(registry): State<Arc<Registry>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditList>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let most = query.most.unwrap_or(AUDITED);
    if !(1..=MOST_AUDITED).contains(&most) {
        let rule = format!("most is {most}, and not from 1 to {MOST_AUDITED}");
        return Err(Problem::malformed(rule));
    }
    let before = query.before.unwrap_or(i64::MAX);
    let entries = registry.audit_before(before, most);
    let entries = body::within_deadline(entries).await?;
    Ok(Json(entries.map_err(|error| Problem::from(&error))?))
}
