//! The REST API: routes, and how what the registry says becomes an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use axum::routing::get;
use axum::{Extension, Router};
use mesh_rest::heartbeat::Heartbeat;
use mesh_rest::heartbeat_token::{self, HeartbeatToken};
use mesh_rest::leave::Leave;
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::{error, warn};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::feed_query::FeedQuery;
use crate::api::openapi::{
    NodesAnswer, WhenBeating, WhenLeaving, WhenListing, WhenReading, WhenRegistering, WhenStopping,
};
use crate::api::problem::{Kind, Problem};
use crate::cluster::identity::Clash;
use crate::cluster::registration::{FieldError, Registration};
use crate::http::connection::Waited;
use crate::http::{answer, body};
use crate::registry::{Admitted, ChangeError, Holder, Registry};
use crate::store::StoreError;
use crate::traffic::matrix::{self, TrafficMatrix};
use crate::traffic::report::Report;

pub mod feed_query;
mod health;
pub mod openapi;
pub mod problem;
mod subnets;

/// The API on `registry`.
pub fn router(registry: Arc<Registry>) -> Router {
    let (routes, _) = routes().split_for_parts();
    with_problems(routes.with_state(registry))
}

/// The calls, each with its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<Registry>> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(health::health))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(list))
        .routes(routes!(register))
        .routes(routes!(heartbeat))
        .routes(routes!(deregister))
        .routes(routes!(leave))
        .routes(routes!(traffic_matrix))
        .routes(routes!(subnets::list))
        .routes(routes!(subnets::release))
        .routes(routes!(subnets::release_departed))
        .routes(routes!(subnets::reserve))
        .routes(routes!(subnets::unreserve))
        .routes(routes!(openapi::openapi_json))
        .routes(routes!(openapi::to_docs))
        .route("/api/docs/", get(openapi::docs_page))
        .route("/api/docs/{name}", get(openapi::docs_asset))
}

/// Whatever goes wrong outside a handler is a problem document as well.
fn with_problems(routes: Router) -> Router {
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http().on_failure(()))
}

/// Every node, or what changed
///
/// Without parameters the whole list. With `since=R` what changed after revision R: the nodes that are new or
/// different, the ids of those that were removed, and the revision to ask with next. With `wait` as well, the answer
/// comes when there is news, or after that many seconds without. `full` is true and `nodes` the whole list when R is
/// too old, unknown, or of another `database`. A new `last_heartbeat` alone is no news.
#[utoipa::path(
    get,
    path = "/api/nodes",
    tag = "nodes",
    operation_id = "list",
    params(
        ("since" = Option<i64>, Query, minimum = 0, description = "The revision that the asker has"),
        ("wait" = Option<f64>, Query, minimum = 0, maximum = 60,
            description = "How many seconds to wait for news; needs `since`"),
        ("database" = Option<String>, Query,
            description = "The `database` that `since` is a revision of; needs `since`"),
        ("node" = Option<String>, Query,
            description = "The id of the node that asks, which counts as its heartbeat; needs `since`")
    ),
    responses((status = 200, body = NodesAnswer, headers(
        ("quilt-mesh-token" = Option<String>,
            description = "For a `node`: to be sent, in the same header, with the next question or heartbeat"))), WhenListing)
)]
async fn list(
    State(registry): State<Arc<Registry>>,
    waited: Option<Extension<Waited>>,
    headers: HeaderMap,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<(Option<NextToken>, Response), Problem> {
    if let Some(Extension(Waited { query, token })) = waited {
        let wait = Duration::ZERO;
        let query = FeedQuery { wait, ..query };
        let answer = feed_answer(&registry, &query).await?;
        return Ok((next_token(&registry, &query, token), answer));
    }
    let Query(parameters) =
        parameters.map_err(|rejection| Problem::new(Kind::Malformed, rejection.body_text()))?;
    match FeedQuery::read(&parameters) {
        Err(rule) => Err(Problem::new(Kind::Malformed, rule)),
        Ok(None) => {
            body::within_deadline(registry.refresh()).await??;
            let _turn = body::within_deadline(answer::turn()).await?;
            Ok((None, answer_json(registry.list())?))
        }
        Ok(Some(query)) => {
            let token = token(&headers);
            if let Some(id) = &query.node {
                let asked = registry.asked_by(id, token);
                taken(body::within_deadline(asked).await?, id)?;
            }
            let answer = feed_answer(&registry, &query).await?;
            Ok((next_token(&registry, &query, token), answer))
        }
    }
}

/// What the node that asks comes with next: handed out when it is answered, and not when it began to wait, or it would
/// be an old one by then.
fn next_token(
    registry: &Registry,
    query: &FeedQuery,
    token: Option<HeartbeatToken>,
) -> Option<NextToken> {
    let next = registry.hand_out(query.node.as_ref()?, token)?;
    Some(NextToken(next))
}

async fn feed_answer(registry: &Registry, query: &FeedQuery) -> Result<Response, Problem> {
    // Before its turn, which it must not keep while it waits.
    registry.wait_for_news(query).await?;
    let _turn = match registry.is_far_behind(query) {
        true => body::within_deadline(answer::turn()).await?,
        false => {
            body::within_deadline(answer::room()).await?;
            None
        }
    };
    answer_json(registry.changes(query))
}

fn answer_json(text: Result<Bytes, serde_json::Error>) -> Result<Response, Problem> {
    match text {
        Ok(json) => Ok(answer::json(json)),
        Err(error) => {
            error!(%error, "a node list cannot be serialised; this is a bug");
            Err(Problem::new(
                Kind::Internal,
                "the control plane has a bug here; its log tells more",
            ))
        }
    }
}

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
async fn register(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<(NextToken, axum::Json<Admitted>), Problem> {
    let token = token(request.headers());
    let json = body::json(request).await?;
    let registration =
        Registration::from_json(&json, registry.plan().cluster()).map_err(invalid_fields)?;
    let registered = registry.register(registration, token);
    let (admitted, next) = body::within_deadline(registered).await??;
    Ok((NextToken(next), axum::Json(admitted)))
}

/// What a host comes with next, as a header of the answer.
struct NextToken(HeartbeatToken);

impl IntoResponseParts for NextToken {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        // A token is digits and a point, which a header may have.
        if let Ok(value) = HeaderValue::try_from(self.0.to_string()) {
            parts.headers_mut().insert(heartbeat_token::HEADER, value);
        }
        Ok(parts)
    }
}

/// The token that a host comes with. One that cannot be read counts as none, as of an agent of another version.
pub(crate) fn token(headers: &HeaderMap) -> Option<HeartbeatToken> {
    let value = headers.get(heartbeat_token::HEADER)?.to_str().ok()?;
    value.parse().ok()
}

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
        ("quilt-mesh-token" = String, description = "To be sent, in the same header, with the next heartbeat or registration"))), WhenBeating)
)]
async fn heartbeat(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<(NextToken, StatusCode), Problem> {
    let Path(id) = id.map_err(bad_path)?;
    let token = token(request.headers());
    // Read first: a heartbeat that is refused has not happened.
    let report = match body::report(request).await? {
        Some(body) => Some(Report::read(body).await?),
        None => None,
    };
    let overlay_mtu = report.as_ref().and_then(|report| report.overlay_mtu);
    let beat = registry.heartbeat(&id, overlay_mtu, token);
    let next = taken(body::within_deadline(beat).await?, &id)?;
    if let Some(report) = report {
        registry.keep_report(id, report);
    }
    Ok((NextToken(next), StatusCode::OK))
}

/// What came of a node's sign of life.
fn taken<T>(outcome: Result<T, ChangeError>, id: &str) -> Result<T, Problem> {
    outcome.map_err(|error| match error {
        ChangeError::UnknownNode => {
            let detail = format!(
                "no registered node has the id {id:?}; register again with POST /api/nodes/register"
            );
            Problem::new(Kind::UnknownNode, detail)
        }
        error => error.into(),
    })
}

/// Who sends how much to whom
///
/// The latest report of every node, as it counts itself since its data plane was set up, whichever replica it reported
/// to; `report_age_ms` says how old it is. Where there are several replicas, a report reaches the others within some
/// seconds. A control plane of its own that was restarted knows of a node's traffic when the node has sent its next
/// report.
#[utoipa::path(get, path = "/api/traffic", tag = "traffic", operation_id = "traffic",
    responses((status = 200, body = TrafficMatrix<'_>), WhenReading))]
async fn traffic_matrix(State(registry): State<Arc<Registry>>) -> Result<Response, Problem> {
    let place = body::within_deadline(answer::stream()).await?;
    body::within_deadline(registry.refresh()).await??;
    // Before the reports: of a node that has left by then there are none.
    let nodes = registry.nodes();
    let told = body::within_deadline(registry.told()).await??;
    Ok(matrix::answer(nodes, told, registry, place))
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
async fn deregister(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(bad_path)?;
    body::bytes(request).await?;
    match body::within_deadline(registry.deregister(&id)).await? {
        Ok(()) => Ok(StatusCode::OK),
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
async fn leave(
    State(registry): State<Arc<Registry>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(bad_path)?;
    let json = body::json(request).await?;
    let leave: Leave = serde_json::from_value(json).map_err(|error| {
        invalid_fields(vec![FieldError {
            pointer: "#/node_key".to_owned(),
            detail: format!("node_key must be the key that the node registered with: {error}"),
        }])
    })?;
    match body::within_deadline(registry.leave(&id, leave.node_key)).await? {
        Ok(()) => Ok(StatusCode::OK),
        Err(ChangeError::UnknownNode) => Err(no_node(&id)),
        Err(error) => Err(error.into()),
    }
}

fn no_node(id: &str) -> Problem {
    Problem::new(Kind::UnknownNode, format!("no node has the id {id:?}"))
}

async fn no_such_route(method: Method, uri: Uri) -> Problem {
    Problem::new(
        Kind::NoSuchRoute,
        format!("there is no route {method} {}", uri.path()),
    )
}

/// The `Allow` header is added by the router, which knows the route's methods.
async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!(
        "{} does not have the method {method}; see the Allow header",
        uri.path()
    );
    Problem::new(Kind::MethodNotAllowed, detail)
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    error!(
        panic = what,
        "a request made the control plane panic; this is a bug"
    );
    Problem::new(
        Kind::Internal,
        "the control plane has a bug here; its log tells more",
    )
    .into_response()
}

fn bad_path(rejection: PathRejection) -> Problem {
    Problem::new(Kind::Malformed, rejection.body_text())
}

fn invalid_fields(errors: Vec<FieldError>) -> Problem {
    let detail: Vec<&str> = errors.iter().map(|error| error.detail.as_str()).collect();
    let detail = detail.join("; ");
    let errors: Vec<Value> = errors
        .into_iter()
        .map(|error| json!({"pointer": error.pointer, "detail": error.detail}))
        .collect();
    Problem::new(Kind::InvalidFields, detail).with("errors", errors)
}

fn holder_json(holder: &Holder) -> Value {
    json!({"node_id": holder.node_id, "hostname": holder.hostname, "host_ip": holder.host_ip})
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        match error {
            ChangeError::BeatsTooSeldom { .. } => {
                warn!(reason = message, "registration refused");
                let detail = format!(
                    "heartbeat_interval_ms: {message}. Leave --heartbeat-interval away, or start the control plane \
                     with a longer --node-timeout"
                );
                invalid_fields(vec![FieldError {
                    pointer: "#/heartbeat_interval_ms".to_owned(),
                    detail,
                }])
            }
            ChangeError::InUse { clash, holder } => {
                warn!(%holder.node_id, holder.hostname, %holder.host_ip, ?clash, "registration refused: in use");
                let advice = match clash {
                    Clash::Address => {
                        "give this host another address; if it is that node and lost its state, it is let in once that has been \
                         silent for the node timeout"
                    }
                    Clash::Key => {
                        "if this host's disk is a copy of that one's, delete the key file of the agent here"
                    }
                };
                Self::new(Kind::InUse, format!("{message}; {advice}"))
                    .with("holder", holder_json(&holder))
            }
            ChangeError::SubnetsExhausted {
                subnets,
                reserved,
                held_by_down_nodes,
                ..
            } => {
                warn!(
                    subnets,
                    reserved, held_by_down_nodes, "registration refused: no subnet is free"
                );
                Self::new(Kind::SubnetsExhausted, message)
                    .with("subnets", subnets)
                    .with("reserved", reserved)
                    .with("held_by_down_nodes", held_by_down_nodes)
            }
            ChangeError::Held(_) => Self::new(Kind::DatabaseUnavailable, message),
            ChangeError::UnknownNode => Self::new(Kind::UnknownNode, message),
            ChangeError::Copy { holder } => {
                let detail = format!(
                    "{message}; if it shall be a node of its own, remove node-key and node-token from its agent's state \
                     directory and restart the agent. If it is the original, stop the copy: this host goes on by itself \
                     when that has been silent for the node timeout"
                );
                let problem = Self::new(Kind::Copy, detail);
                match holder {
                    Some(holder) => problem.with("holder", holder_json(&holder)),
                    None => problem,
                }
            }
            ChangeError::OtherKey { .. } => Self::new(Kind::OtherKey, message),
            ChangeError::HolderUp(tenant) | ChangeError::Leased(tenant) => {
                Self::new(Kind::InUse, message).with(
                    "holder",
                    json!({"node_id": tenant.node_id, "hostname": tenant.hostname}),
                )
            }
            ChangeError::ReservedAlready(reservation) => {
                Self::new(Kind::InUse, message).with("reservation", reservation.cidr)
            }
            ChangeError::TooManyReservations(_) => Self::new(Kind::LimitReached, message),
            ChangeError::NotLeased => Self::new(Kind::NotLeased, message),
            ChangeError::NotReserved => Self::new(Kind::NotReserved, message),
            ChangeError::Stopping => Self::new(Kind::Overloaded, message),
            ChangeError::Store(error) => Self::from(&*error),
        }
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        if matches!(error, StoreError::Statement(_)) {
            error!(%error, "the database refused a statement; this is a bug");
            return Self::new(
                Kind::Internal,
                "the control plane has a bug here; its log tells more",
            );
        }
        warn!(%error, "a request needs the database, which is unavailable");
        Self::new(Kind::DatabaseUnavailable, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_answered_with_a_problem() {
        async fn bug() -> StatusCode {
            panic!("as if by a bug")
        }
        let routes = with_problems(Router::new().route("/bug", get(bug)));
        let request = Request::get("/bug").body(Body::empty()).unwrap();
        let response = routes.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
}
