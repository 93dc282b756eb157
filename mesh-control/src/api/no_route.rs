//! What is asked for where there is no call, in a way that it does not know, or answered by a bug: problem documents as well.

use axum::Router;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use mesh_rest::problem_kind::Kind;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::error;

use super::problem::Problem;

/// Whatever goes wrong outside a handler is a problem document as well.
pub(super) fn with_problems(routes: Router) -> Router {
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http().on_failure(()))
}

async fn no_such_route(method: Method, uri: Uri) -> Problem {
    Problem::new(
        Kind::NoSuchRoute,
        format!("there is no route {method} {}", uri.path()),
    )
}

/// The `Allow` header is added by the router, which knows the route's methods.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!(
        "{} does not have the method {method}; see the Allow header",
        uri.path()
    );
    Problem::new(Kind::MethodNotAllowed, detail)
}

/// The answer in the place of one that a panic prevented.
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    error!(name: "request-made-control-plane-panic",
        panic = what,
        "a request made the control plane panic; this is a bug"
    );
    Problem::bug().into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::StatusCode;
    use axum::routing::get;
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
