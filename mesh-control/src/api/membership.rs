//! Joining, stopping and leaving.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use mesh_rest::admitted::Admitted;
use mesh_rest::leave::Leave;
use mesh_rest::problem::FieldError;
use mesh_rest::problem_kind::Kind;
use mesh_rest::registration::Registration;

use super::asker::Asker;
use super::openapi::{WhenLeaving, WhenRegistering, WhenStopping};
use super::problem::Problem;
use super::token::{NextToken, token};
use crate::cluster::registration;
use crate::http::body;
use crate::registry::{ChangeError, Registry};
use crate::write::Proof;

/// Register a node, or recognise it
///
/// The answer is the node's id and the subnet it leases; the lease is on the disk by then. Registering again with the
/// same `node_key`, or without one from the same `host_ip`, answers the same again; host name and address may change.
#[utoipa::path(
    post,
    path = "/api/nodes/register",
    tag = "nodes",
    request_body = Registration,
    responses(
        (status = 200, body = Admitted, links(
            ("heartbeat" = (operation_id = "heartbeat", parameters(("id" = "$response.body#/node_id")))),
            ("deregister" = (operation_id = "deregister", parameters(("id" = "$response.body#/node_id"))))
        )),
        WhenRegistering
    )
)]
pub(super) async fn register(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<(NextToken, Json<Admitted>), Problem> {
    let token = token(request.headers());
    let asker = Asker::of(&request);
    let json = body::json(request).await?;
    let registration =
        registration::read(&json, registry.plan().cluster()).map_err(Problem::invalid_fields)?;
    let registered = async {
        let node = match (asker.node, &asker.certificate) {
            (Some(node), Some(certificate)) => {
                let node_key = registration.node_key.as_deref();
                let credited = registry.credit(node, certificate, node_key, &asker.doer);
                Some(credited.await.map_err(Problem::from)?)
            }
            (node, _) => node,
        };
        let registered = registry
            .register(registration, token, node, &asker.doer.mandate)
            .await;
        registered.map_err(Problem::from)
    };
    let (admitted, next) = body::within_deadline(registered).await??;
    Ok((NextToken(next), Json(admitted)))
}

/// Take a node down at once, because its agent stops
///
/// It keeps its subnet, and comes back by registering. The other nodes keep it as long as its packets arrive.
/// Repeating it is success.
#[utoipa::path(
    post,
    path = "/api/nodes/{id}/deregister",
    tag = "nodes",
    params(("id" = String, Path, description = "The node's id")),
    responses((status = 200, description = "Down; the body is empty"), WhenStopping)
)]
pub(super) async fn deregister(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let asker = Asker::of(&request);
    body::bytes(request).await?;
    match body::within_deadline(registry.deregister(&id, &asker.doer.mandate)).await? {
        Ok(()) => {
            // A node that stops is no news.
            if asker.node.is_none() {
                let subject = format!("node {id}");
                registry.note(asker.doer.did("deregister", &subject));
            }
            Ok(StatusCode::OK)
        }
        Err(ChangeError::UnknownNode) => Err(no_node(&id)),
        Err(error) => Err(error.into()),
    }
}

/// Let a node leave for good
///
/// Only with the key that it registered with. The other nodes take it out at once, and its subnet can be released,
/// see `--release-after` and `POST /api/subnets/release-departed`. Until then it comes back, with its subnet, by
/// registering. Repeating it is success.
#[utoipa::path(
    post,
    path = "/api/nodes/{id}/leave",
    tag = "nodes",
    params(("id" = String, Path, description = "The node's id")),
    request_body = Leave,
    responses((status = 200, description = "Left; the body is empty"), WhenLeaving)
)]
pub(super) async fn leave(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    let asker = Asker::of(&request);
    let json = body::json(request).await?;
    let leave: Leave = serde_json::from_value(json).map_err(|error| {
        Problem::invalid_fields(vec![FieldError {
            pointer: "#/node_key".to_owned(),
            detail: format!("node_key must be the key that the node registered with: {error}"),
        }])
    })?;
    let proof = match asker.node {
        Some(_) => Proof::Certificate,
        None => Proof::Key(leave.node_key),
    };
    match body::within_deadline(registry.leave(&id, proof, &asker.doer.mandate)).await? {
        Ok(()) => {
            let subject = format!("node {id}");
            registry.note(asker.doer.did("leave", &subject));
            Ok(StatusCode::OK)
        }
        Err(ChangeError::UnknownNode) => Err(no_node(&id)),
        Err(error) => Err(error.into()),
    }
}

fn no_node(id: &str) -> Problem {
    Problem::new(Kind::UnknownNode, format!("no node has the id {id:?}"))
}
