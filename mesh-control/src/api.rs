//! The REST API: its calls, and how what the registry says becomes an answer.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::registry::Registry;

pub mod access;
pub(crate) mod asker;
mod checks;
pub mod feed_query;
mod findings;
pub(crate) mod guard;
pub(crate) mod health;
mod heartbeat;
mod join;
mod membership;
pub(crate) mod no_route;
mod node_credentials;
pub(crate) mod nodes;
pub mod openapi;
pub mod problem;
mod refusal;
mod security;
mod subnets;
pub(crate) mod token;
mod tokens;
mod traffic;

/// The API on `registry`.
pub fn router(registry: Arc<Registry>) -> Router {
    let (routes, _) = routes().split_for_parts();
    let routes = routes.route_layer(from_fn(guard::only_what_was_let_in));
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
        .routes(routes!(findings::list))
        .routes(routes!(checks::order))
        .routes(routes!(checks::state))
        .routes(routes!(subnets::list))
        .routes(routes!(subnets::release))
        .routes(routes!(subnets::release_departed))
        .routes(routes!(subnets::reserve))
        .routes(routes!(subnets::unreserve))
        .routes(routes!(join::join))
        .routes(routes!(join::renew))
        .routes(routes!(join::authorities))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(node_credentials::list))
        .routes(routes!(node_credentials::revoke))
        .routes(routes!(tokens::create_operator, tokens::operators))
        .routes(routes!(tokens::revoke_operator))
        .routes(routes!(security::security))
        .routes(routes!(security::change_stage))
        .routes(routes!(security::rotate))
        .routes(routes!(security::export))
        .routes(routes!(security::import))
        .routes(routes!(security::audit))
        .routes(routes!(openapi::openapi_json))
        .routes(routes!(openapi::to_docs))
        .route("/api/docs/", get(openapi::docs_page))
        .route("/api/docs/{name}", get(openapi::docs_asset))
}
