//! The REST API: its calls, and how what the registry says becomes an answer.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::registry::Registry;

pub mod feed_query;
mod health;
mod heartbeat;
mod membership;
pub(crate) mod no_route;
pub(crate) mod nodes;
pub mod openapi;
pub mod problem;
mod refusal;
mod subnets;
pub(crate) mod token;
mod traffic;

/// The API on `registry`.
pub fn router(registry: Arc<Registry>) -> Router {
    let (routes, _) = routes().split_for_parts();
    no_route::with_problems(routes.with_state(registry))
}

/// The calls, each with its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<Registry>> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(health::health))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(nodes::list))
        .routes(routes!(membership::register))
        .routes(routes!(heartbeat::heartbeat))
        .routes(routes!(membership::deregister))
        .routes(routes!(membership::leave))
        .routes(routes!(traffic::matrix))
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
