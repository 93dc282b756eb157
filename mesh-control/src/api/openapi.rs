//! The description of the API (OpenAPI 3.1): generated from the handlers and types that serve it, and
//! the page that shows it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mesh_rest::node_list::{NodeChanges, NodesAnswer};
use mesh_rest::problem::ProblemDocument;
use mesh_rest::problem_kind::Kind;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::{Response as Documented, ResponseBuilder};
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr};
use utoipa::{OpenApi as _, ToSchema};
use utoipa_swagger_ui::Config;

use crate::api;
use crate::api::access::{Rule, TABLE};
use crate::api::problem::{self, Problem};

const DESCRIPTION: &str = "\
The REST API of the control plane. Fields, calls and kinds of problem are added, never renamed or removed; \
clients ignore what they do not know.

Every error is a problem document (RFC 9457): `application/problem+json` whose `type` names the kind and whose \
`detail` says what to do. A path that is not here is answered 404 `no-such-route`, a method that a path does not \
have 405 `method-not-allowed` with the header Allow. A client that takes longer than 30 s for the head of a request \
is disconnected without an answer.

Nodes show certificates, which they get by a join token (`POST /api/join`), and act for themselves alone; operators send \
`Authorization: Bearer` with a token of theirs, whose role is to read or to operate. The admin socket may do everything. \
Without any credential there are `/health`, `/livez`, `/readyz`, `/api/ca` and `/api/join`. What a cluster lets in \
beside that, because it is older than credentials or was told to, every answer says in the header \
`quilt-mesh-insecure`. Who is refused again and again is answered 429 `slow-down`.";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Quilt Mesh control plane", description = DESCRIPTION),
    tags(
        (name = "nodes", description = "Who is in the cluster, with which subnet, and alive"),
        (name = "subnets", description = "Leases and reservations, for operators"),
        (name = "credentials", description = "Who may join, and who may ask"),
        (name = "traffic", description = "Who sends how much to whom"),
        (name = "findings", description = "What is not as it should be"),
        (name = "checks", description = "Whether every node reaches every other"),
        (name = "service", description = "The control plane itself")
    ),
    components(schemas(ProblemDocument, NodesAnswer<'_>, NodeChanges))
)]
struct Frame;

/// The description without its calls.
pub(crate) fn frame() -> OpenApi {
    Frame::openapi()
}

/// The whole description.
pub fn document() -> OpenApi {
    let mut document = api::routes().into_openapi();
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("GET", &mut item.get),
            ("POST", &mut item.post),
            ("PUT", &mut item.put),
            ("DELETE", &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                let is_public = TABLE.iter().any(|entry| {
                    (entry.method, entry.path) == (method, path) && entry.rule == Rule::Public
                });
                add_common_problems(operation, is_public);
            }
        }
    }
    document
}

/// What every call may be answered: a head that cannot be read, what may happen to any request, and, unless everybody
/// may ask it, that who asks may not.
fn add_common_problems(operation: &mut Operation, is_public: bool) {
    let mut common = vec![
        Kind::Malformed,
        Kind::TargetTooLong,
        Kind::HeadersTooLarge,
        Kind::WrongOrigin,
        Kind::WrongHost,
        Kind::TlsRequired,
        Kind::SlowDown,
        Kind::Internal,
    ];
    if !is_public {
        common.extend([
            Kind::Unauthorized,
            Kind::CertificateExpired,
            Kind::Clock,
            Kind::JoinAgain,
            Kind::Forbidden,
        ]);
    }
    if operation.request_body.is_some() {
        common.extend([Kind::BodyTooLarge, Kind::BodyTooSlow]);
    }
    let responses = &mut operation.responses.responses;
    for kind in common {
        add(responses, kind);
    }
}

/// Kinds of problem as responses of a call, those of one status together.
pub(crate) fn responses(kinds: &[Kind]) -> BTreeMap<String, RefOr<Documented>> {
    let mut responses = BTreeMap::new();
    for kind in kinds {
        add(&mut responses, *kind);
    }
    responses
}

fn add(responses: &mut BTreeMap<String, RefOr<Documented>>, kind: Kind) {
    let status = problem::status(kind);
    let line = format!("- `{}`: {}", kind.slug(), kind.title());
    match responses.get_mut(status.as_str()) {
        Some(RefOr::T(response)) => {
            if !response.description.contains(&line) {
                response.description = format!("{}\n{line}", response.description);
            }
        }
        Some(RefOr::Ref(_)) => {}
        None => {
            let schema = Ref::from_schema_name("ProblemDocument");
            let mut response = ResponseBuilder::new().description(line).content(
                "application/problem+json",
                ContentBuilder::new().schema(Some(schema)).build(),
            );
            let waits = [
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::TOO_MANY_REQUESTS,
            ];
            if waits.contains(&status) {
                let seconds = HeaderBuilder::new()
                    .description(Some("Seconds after which to try again"))
                    .build();
                response = response.header("Retry-After", seconds);
            }
            responses.insert(status.as_str().to_owned(), RefOr::T(response.build()));
        }
    }
}

/// Names sets of problems for the attribute `utoipa::path`.
macro_rules! problems {
    ($($(#[$meta:meta])* $name:ident: $($kind:ident),*;)*) => {$(
        $(#[$meta])*
        pub(crate) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Documented>> {
                responses(&[$(Kind::$kind),*])
            }
        }
    )*};
}

problems! {
    /// Of `list`.
    WhenListing: Malformed, UnknownNode, Copy, DatabaseUnavailable, Overloaded;
    /// Of calls that read what is stored.
    WhenReading: DatabaseUnavailable, Overloaded;
    /// Of `readyz`.
    WhenReady: NotReady;
    /// Of `register`.
    WhenRegistering: Malformed, NotJsonMediaType, InvalidFields, Unauthorized, Forbidden, InUse, AddressKept, Copy, SubnetsExhausted, DatabaseUnavailable, Overloaded;
    /// Of `heartbeat`.
    WhenBeating: Malformed, InvalidFields, UnknownNode, Copy, DatabaseUnavailable, Overloaded;
    /// Of `deregister`.
    WhenStopping: Malformed, UnknownNode, DatabaseUnavailable, Overloaded;
    /// Of `leave`.
    WhenLeaving: Malformed, NotJsonMediaType, InvalidFields, UnknownNode, OtherKey, DatabaseUnavailable, Overloaded;
    /// Of `release_departed`.
    WhenReleasingDeparted: Malformed, NotJsonMediaType, InvalidFields, DatabaseUnavailable, Overloaded;
    /// Of `release`.
    WhenReleasing: Malformed, NotJsonMediaType, InvalidFields, InUse, NotLeased, DatabaseUnavailable, Overloaded;
    /// Of `reserve`.
    WhenReserving: Malformed, NotJsonMediaType, InvalidFields, InUse, LimitReached, DatabaseUnavailable, Overloaded;
    /// Of `join`.
    WhenJoining: Malformed, NotJsonMediaType, InvalidFields, TokenRefused, NoAuthority, DatabaseUnavailable, Overloaded;
    /// Of `renew`.
    WhenRenewing: Malformed, NotJsonMediaType, InvalidFields, Unauthorized, Forbidden, NoAuthority, DatabaseUnavailable, Overloaded;
    /// Of `authorities`.
    WhenListingAuthorities: NoAuthority;
    /// Of `audit`.
    WhenAuditing: Malformed, DatabaseUnavailable, Overloaded;
    /// Of calls that make a credential.
    WhenCreating: Malformed, NotJsonMediaType, InvalidFields, NotNow, NoAuthority, DatabaseUnavailable, Overloaded;
    /// Of calls that end one.
    WhenRevoking: Malformed, NoSuchCredential, DatabaseUnavailable, Overloaded;
    /// Of calls that change how the cluster is secured.
    WhenChanging: Malformed, NotJsonMediaType, InvalidFields, NotNow, NoAuthority, TokenRefused, DatabaseUnavailable, Overloaded;
    /// Of `order_check`.
    WhenChecking: Malformed, DatabaseUnavailable, Overloaded;
    /// Of `check`.
    WhenLookingAtCheck: Malformed, NoSuchCheck, Overloaded;
    /// Of `unreserve`.
    WhenUnreserving: Malformed, NotJsonMediaType, InvalidFields, NotReserved, DatabaseUnavailable, Overloaded;
}

/// The body of `GET /api/nodes`: as [`NodeChanges`] when asked with `since`, else a [`NodesAnswer`].
pub(crate) struct ListOrChanges;

impl ToSchema for ListOrChanges {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("NodesAnswer")
    }
}

impl utoipa::PartialSchema for ListOrChanges {
    fn schema() -> RefOr<Schema> {
        // Changes have every field of the list, so that they match both, and one of the two is not enough.
        AnyOfBuilder::new()
            .item(Ref::from_schema_name(NodeChanges::name()))
            .item(Ref::from_schema_name(NodesAnswer::name()))
            .into()
    }
}

static JSON: LazyLock<Bytes> = LazyLock::new(|| {
    // Maps with text for keys serialise; a test holds what comes out against the contract.
    serde_json::to_vec_pretty(&document())
        .unwrap_or_default()
        .into()
});

/// This description
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "service",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(crate) async fn openapi_json() -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, content_type)], JSON.clone()).into_response()
}

/// To the page that shows this description
///
/// It needs nothing from other hosts.
#[utoipa::path(
    get,
    path = "/api/docs",
    tag = "service",
    operation_id = "docs",
    responses((status = 308, description = "The page is at /api/docs/", headers(("Location" = String))))
)]
pub(crate) async fn to_docs() -> Response {
    // Relative, so that it holds behind a proxy that adds to the path.
    let location = HeaderValue::from_static("docs/");
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response()
}

/// The page itself.
pub(crate) async fn docs_page() -> Result<Response, Problem> {
    docs_file("index.html")
}

/// What the page loads.
pub(crate) async fn docs_asset(
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) = name.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    docs_file(&name)
}

fn docs_file(name: &str) -> Result<Response, Problem> {
    // Without the last the page would ask a validator on the Internet about this host's description.
    let config = Config::from("../openapi.json").validator_url("none");
    match utoipa_swagger_ui::serve(name, Arc::new(config)) {
        Ok(Some(file)) => {
            let content_type = HeaderValue::from_str(&file.content_type)
                .unwrap_or(HeaderValue::from_static("application/octet-stream"));
            let bytes = match file.bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => bytes.into(),
            };
            Ok(([(CONTENT_TYPE, content_type)], bytes).into_response())
        }
        Ok(None) => Err(Problem::new(
            Kind::NoSuchRoute,
            format!("the page has no file {name:?}"),
        )),
        Err(error) => Err(Problem::new(Kind::Internal, error.to_string())),
    }
}
