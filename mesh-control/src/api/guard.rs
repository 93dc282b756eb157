//! The last look before a handler: that the router leads a request to the call that it was let in for.
//!
//! What a request needs is found in the table by its path, before the router has seen it. Were the two ever to read a
//! path in two ways, or a call not to stand in the table, it would end here.

use axum::extract::{MatchedPath, Request};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use mesh_rest::problem_kind::Kind;
use tracing::error;

use super::access::{Entry, TABLE};
use super::no_route::method_not_allowed;
use super::problem::Problem;

/// What a request was let in for, as an extension of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LetIn {
    /// The call; `None`: the table knows of none.
    pub(crate) entry: Option<&'static Entry>,
    /// Over the admin socket, which may ask everything.
    pub(crate) by_admin: bool,
}

/// See the module.
pub(super) async fn only_what_was_let_in(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let routed = extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let let_in = extensions.get::<LetIn>();
    let is_right = match (let_in, routed) {
        (Some(let_in), _) if let_in.by_admin => true,
        (Some(let_in), Some(routed)) => let_in.entry.is_some_and(|entry| entry.path == routed),
        _ => false,
    };
    if is_right {
        return next.run(request).await;
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let methods = methods(routed.unwrap_or_default());
    let is_another_method = let_in.is_some_and(|let_in| let_in.entry.is_none());
    if is_another_method && !methods.is_empty() && !methods.contains(&method.as_str()) {
        let mut answer = method_not_allowed(method, uri).await.into_response();
        // Methods are plain text.
        if let Ok(methods) = HeaderValue::from_str(&methods.join(",")) {
            answer.headers_mut().insert(ALLOW, methods);
        }
        return answer;
    }
    error!(name: "request-led-another-call-than", %method, path = uri.path(), routed, "a request was led to another call than it was let in for; this is a bug");
    let detail =
        "this control plane does not know what this call needs, and lets nobody in; this is a bug";
    Problem::new(Kind::Forbidden, detail).into_response()
}

/// The methods that the table has for a path.
fn methods(path: &str) -> Vec<&'static str> {
    let mut methods = Vec::new();
    for entry in TABLE.iter().filter(|entry| entry.path == path) {
        methods.push(entry.method);
        if entry.method == Method::GET.as_str() {
            methods.push(Method::HEAD.as_str());
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::{delete, get};
    use tower::ServiceExt as _;

    use super::*;
    use crate::api::access::Needs;

    /// A router that has two calls more than the table.
    async fn ask(request: Request) -> u16 {
        let router = Router::new()
            .route("/health", get(async || "here"))
            .route("/api/subnets", get(async || "here"))
            .route("/api/new", get(async || "here"))
            .route("/livez", delete(async || "here"))
            .route_layer(from_fn(only_what_was_let_in));
        router.oneshot(request).await.unwrap().status().as_u16()
    }

    fn request(method: &str, path: &str, let_in: Option<LetIn>) -> Request {
        let request = Request::builder().method(method).uri(path);
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().extend(
            let_in
                .map(|let_in| {
                    let mut extensions = axum::http::Extensions::new();
                    extensions.insert(let_in);
                    extensions
                })
                .unwrap_or_default(),
        );
        request
    }

    fn let_in(method: &Method, path: &'static str, by_admin: bool) -> Option<LetIn> {
        let entry = Needs::of(method, &axum::http::Uri::from_static(path)).entry;
        Some(LetIn { entry, by_admin })
    }

    #[tokio::test]
    async fn a_request_reaches_the_call_that_it_was_let_in_for_and_no_other() {
        for (method, path, let_in, expected) in [
            (
                "GET",
                "/health",
                let_in(&Method::GET, "/health", false),
                200,
            ),
            (
                "HEAD",
                "/health",
                let_in(&Method::HEAD, "/health", false),
                200,
            ),
            (
                "GET",
                "/api/subnets",
                let_in(&Method::GET, "/health", false),
                403,
            ),
            ("GET", "/api/subnets", None, 403),
            // The table has neither.
            (
                "GET",
                "/api/new",
                let_in(&Method::GET, "/api/new", false),
                403,
            ),
            (
                "DELETE",
                "/livez",
                let_in(&Method::DELETE, "/livez", false),
                405,
            ),
            (
                "GET",
                "/api/new",
                let_in(&Method::GET, "/api/new", true),
                200,
            ),
            (
                "DELETE",
                "/livez",
                let_in(&Method::DELETE, "/livez", true),
                200,
            ),
        ] {
            let status = ask(request(method, path, let_in)).await;
            assert_eq!(status, expected, "{method} {path} {let_in:?}");
        }
    }
}
