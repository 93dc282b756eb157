//! Checks of the ways between all nodes.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use mesh_rest::check::{CheckOrdered, CheckState};
use mesh_rest::problem_kind::Kind;

use super::asker::Asker;
use super::openapi::{WhenChecking, WhenLookingAtCheck};
use super::problem::Problem;
use crate::http::{answer, body};
use crate::registry::Registry;

/// Have every node ask its peers
///
/// Every node that is up is told, and asks along the ways to its own peers, once: nobody is told whom to ask, and no node
/// does it more often than every few seconds. What came of it is answered by `GET /api/checks/{id}`, for some seconds as it
/// comes. Nodes whose agent is of an earlier version do not answer. The last few checks are kept, and no more than one in ten
/// seconds is made.
#[utoipa::path(post, path = "/api/checks", tag = "checks", operation_id = "order_check",
    responses((status = 200, body = CheckOrdered), WhenChecking))]
pub(super) async fn order(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<Json<CheckOrdered>, Problem> {
    let doer = Asker::of(&request).doer;
    body::bytes(request).await?;
    body::within_deadline(registry.may_still(&doer.mandate)).await??;
    let ordered = body::within_deadline(registry.order_check()).await?;
    let id = ordered
        .map_err(|wait| Problem::slow_down("all nodes were told to ask a moment ago", wait))?;
    registry.note(doer.did("check", "all nodes"));
    Ok(Json(CheckOrdered { id }))
}

/// What came of a check
///
/// Every node that was up when it was ordered, with what it answered, as far as it answered to this replica.
#[utoipa::path(get, path = "/api/checks/{id}", tag = "checks", operation_id = "check",
    params(("id" = String, Path, description = "The check's id")),
    responses((status = 200, body = CheckState), WhenLookingAtCheck))]
pub(super) async fn state(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let _place = body::within_deadline(answer::stream()).await?;
    let _turn = body::within_deadline(answer::turn()).await?;
    let state = registry.check_state(&id).ok_or_else(|| {
        let detail = format!(
            "there is no check {id:?} here, or no more: the last few are kept, until the control plane ends; POST \
             /api/checks makes one"
        );
        Problem::new(Kind::NoSuchCheck, detail)
    })?;
    Ok(answer::json(answer::keep(answer::serialise(&state)?)))
}
