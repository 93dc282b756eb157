//! The REST API: routes, and how what the registry says becomes an answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRef, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::{error, warn};

use crate::body;
use crate::feed_query::FeedQuery;
use crate::identity::Clash;
use crate::node::NodeId;
use crate::problem::{Kind, Problem};
use crate::registration::{FieldError, Registration};
use crate::registry::{self, ChangeError, Registry};
use crate::report::Report;
use crate::traffic::{self, Traffic};

/// What the calls work on.
#[derive(Debug, Clone)]
struct Parts {
    registry: Arc<Registry>,
    traffic: Arc<Traffic>,
}

impl FromRef<Parts> for Arc<Registry> {
    fn from_ref(parts: &Parts) -> Self {
        Self::clone(&parts.registry)
    }
}

impl FromRef<Parts> for Arc<Traffic> {
    fn from_ref(parts: &Parts) -> Self {
        Self::clone(&parts.traffic)
    }
}

/// The API on `registry`.
pub fn router(registry: Arc<Registry>) -> Router {
    let traffic = Arc::default();
    let routes = Router::new()
        .route("/health", get(health))
        .route("/api/nodes", get(list))
        .route("/api/nodes/register", post(register))
        .route("/api/nodes/{id}/heartbeat", post(heartbeat))
        .route("/api/nodes/{id}/deregister", post(deregister))
        .route("/api/traffic", get(traffic_matrix))
        .with_state(Parts { registry, traffic });
    with_problems(routes)
}

/// Whatever goes wrong outside a handler is a problem document as well.
fn with_problems(routes: Router) -> Router {
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http().on_failure(()))
}

async fn health() -> axum::Json<Value> {
    axum::Json(json!({"status": "ok"}))
}

/// The whole list, or with `since` the change feed, which may take as long as its `wait`.
async fn list(
    State(registry): State<Arc<Registry>>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) =
        parameters.map_err(|rejection| Problem::new(Kind::Malformed, rejection.body_text()))?;
    match FeedQuery::read(&parameters) {
        Err(rule) => Err(Problem::new(Kind::Malformed, rule)),
        Ok(None) => Ok(axum::Json(registry.list()).into_response()),
        Ok(Some(query)) => match registry.changes(&query).await {
            Ok(json) => {
                let content_type = HeaderValue::from_static("application/json");
                Ok(([(CONTENT_TYPE, content_type)], json).into_response())
            }
            Err(error) => {
                error!(%error, "an answer of the change feed cannot be serialised; this is a bug");
                Err(Problem::new(
                    Kind::Internal,
                    "the control plane has a bug here; its log tells more",
                ))
            }
        },
    }
}

async fn register(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<axum::Json<Value>, Problem> {
    let json = body::json(request).await?;
    let registration =
        Registration::from_json(&json, registry.plan().cluster()).map_err(invalid_fields)?;
    let admitted = body::within_deadline(registry.register(registration)).await??;
    Ok(axum::Json(
        json!({"node_id": admitted.node_id, "subnet": admitted.subnet}),
    ))
}

async fn heartbeat(
    State(Parts { registry, traffic }): State<Parts>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(bad_path)?;
    // Read first: a heartbeat that is refused has not happened.
    let report = match body::report(request).await? {
        Some(body) => Some(Report::read(body).await?),
        None => None,
    };
    registry.heartbeat(&id).map_err(|_| {
        Problem::new(
            Kind::UnknownNode,
            format!(
                "no registered node has the id {id:?}; register again with POST /api/nodes/register"
            ),
        )
    })?;
    if let Some(report) = report {
        traffic.keep(NodeId::from(id), report, registry::unix_seconds());
    }
    Ok(StatusCode::OK)
}

async fn traffic_matrix(
    State(Parts { registry, traffic }): State<Parts>,
) -> Result<Response, Problem> {
    // Before the list: a node that reports later than it registers is not taken for one that is gone.
    let reports = traffic.reports();
    let list = registry.list();
    traffic.forget_all_but(&reports, &list);
    Ok(traffic::answer(reports, list))
}

async fn deregister(
    State(Parts { registry, traffic }): State<Parts>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(bad_path)?;
    body::bytes(request).await?;
    match body::within_deadline(registry.deregister(&id)).await? {
        Ok(()) => {
            traffic.forget(&id);
            Ok(StatusCode::OK)
        }
        Err(ChangeError::UnknownNode) => Err(Problem::new(
            Kind::UnknownNode,
            format!("no node has the id {id:?}"),
        )),
        Err(error) => Err(error.into()),
    }
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

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        match error {
            ChangeError::InUse { clash, holder } => {
                warn!(%holder.node_id, holder.hostname, %holder.host_ip, ?clash, "registration refused: in use");
                let advice = match clash {
                    Clash::Address => "give this host another address, or deregister that node",
                    Clash::Key => {
                        "if this host's disk is a copy of that one's, delete the key file of the agent here"
                    }
                };
                Self::new(Kind::InUse, format!("{message}; {advice}")).with(
                    "holder",
                    json!({"node_id": holder.node_id, "hostname": holder.hostname, "host_ip": holder.host_ip}),
                )
            }
            ChangeError::SubnetsExhausted {
                subnets,
                held_by_down_nodes,
                ..
            } => {
                warn!(
                    subnets,
                    held_by_down_nodes, "registration refused: no subnet is free"
                );
                Self::new(Kind::SubnetsExhausted, message)
                    .with("subnets", subnets)
                    .with("held_by_down_nodes", held_by_down_nodes)
            }
            ChangeError::UnknownNode => Self::new(Kind::UnknownNode, message),
            ChangeError::Store(crate::store::StoreError::Statement(_))
            | ChangeError::Crashed(_) => {
                error!(error = message, "a change failed; this is a bug");
                Self::new(
                    Kind::Internal,
                    "the control plane has a bug here; its log tells more",
                )
            }
            ChangeError::Store(_) => {
                warn!(
                    error = message,
                    "a request needs the database, which is unavailable"
                );
                Self::new(Kind::DatabaseUnavailable, message)
            }
        }
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
