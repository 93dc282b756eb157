//! Errors as the API tells them: `application/problem+json` (RFC 9457).

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

/// The kinds of problem a client may tell apart by `type`. They are part of the API: add, never rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No such route.
    NoSuchRoute,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The request does not say that its body is JSON.
    NotJsonMediaType,
    /// The request line, a header, the path or the body cannot be parsed.
    Malformed,
    /// The request line is too long.
    TargetTooLong,
    /// The headers are too many or too large.
    HeadersTooLarge,
    /// The body is JSON, but its fields are missing or wrong.
    InvalidFields,
    /// No node with this id, or one that has to register again.
    UnknownNode,
    /// The node_key is not that of the node.
    OtherKey,
    /// A live node has the address or key that was claimed.
    InUse,
    /// Another host goes on as this node; this one is a copy of it.
    Copy,
    /// Every subnet is leased or reserved.
    SubnetsExhausted,
    /// The subnet to release was never leased.
    NotLeased,
    /// The range to unreserve is not reserved.
    NotReserved,
    /// There are as many of these as there can be.
    LimitReached,
    /// The database cannot take the change now.
    DatabaseUnavailable,
    /// The request was not answered in time.
    Overloaded,
    /// Clients should ask another control plane for the time being.
    NotReady,
    /// A bug.
    Internal,
}

impl Kind {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::NoSuchRoute => (S::NOT_FOUND, "no-such-route", "No such route"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
            ),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large"),
            Self::BodyTooSlow => (S::REQUEST_TIMEOUT, "body-too-slow", "Body did not arrive"),
            Self::NotJsonMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "not-json-media-type",
                "Not declared as JSON",
            ),
            Self::Malformed => (S::BAD_REQUEST, "malformed", "Malformed request"),
            Self::TargetTooLong => (S::URI_TOO_LONG, "target-too-long", "Request line too long"),
            Self::HeadersTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "Headers too large",
            ),
            Self::InvalidFields => (
                S::UNPROCESSABLE_ENTITY,
                "invalid-fields",
                "Fields missing or wrong",
            ),
            Self::UnknownNode => (S::NOT_FOUND, "unknown-node", "Unknown node"),
            Self::OtherKey => (S::FORBIDDEN, "other-key", "Not the key of this node"),
            Self::InUse => (S::CONFLICT, "in-use", "In use by a live node"),
            Self::Copy => (S::CONFLICT, "copy", "A copy of a live node"),
            Self::NotLeased => (S::NOT_FOUND, "not-leased", "Not leased"),
            Self::NotReserved => (S::NOT_FOUND, "not-reserved", "Not reserved"),
            Self::LimitReached => (S::CONFLICT, "limit-reached", "Limit reached"),
            Self::SubnetsExhausted => (
                S::SERVICE_UNAVAILABLE,
                "subnets-exhausted",
                "No subnet is free",
            ),
            Self::DatabaseUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "database-unavailable",
                "Database unavailable",
            ),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "No answer in time"),
            Self::NotReady => (S::SERVICE_UNAVAILABLE, "not-ready", "Not ready"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// The last part of its `type`.
    pub fn slug(self) -> &'static str {
        self.parts().1
    }

    /// Its `title`.
    pub fn title(self) -> &'static str {
        self.parts().2
    }

    /// The status this kind is answered with.
    pub fn status(self) -> StatusCode {
        self.parts().0
    }
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: String,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem; `detail` tells the value, the rule, and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            members: Map::new(),
        }
    }

    /// Adds an extension member (RFC 9457 section 3.2).
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The document as JSON.
    pub(crate) fn json(&self) -> Vec<u8> {
        let (status, slug, title) = self.kind.parts();
        let body = Body {
            r#type: format!("urn:quilt-mesh:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            members: &self.members,
        };
        // Serialising strings and integers to memory does not fail; were it to, the status still tells.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let mut response = (status, self.json()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // As often as an agent syncs anyhow.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
