//! Errors on their way to the client.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mesh_rest::problem::{FieldError, Holder, ProblemDocument, RETRY_AFTER_MEMBER};
use mesh_rest::problem_kind::Kind;
use serde_json::Value;

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    /// In a box, because most calls come to no problem.
    document: Box<ProblemDocument>,
}

impl Problem {
    /// A problem; `detail` tells the value, the rule, and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            document: Box::new(ProblemDocument::new(kind, detail)),
        }
    }

    /// Fields that are missing or wrong, all in one answer.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let details: Vec<&str> = errors.iter().map(|error| error.detail.as_str()).collect();
        let mut problem = Self::new(Kind::InvalidFields, details.join("; "));
        problem.document.errors = errors;
        problem
    }

    /// A path or query that cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    /// Something came too often. Why, and in how much time it is taken again.
    pub(crate) fn slow_down(why: &str, retry_after: Duration) -> Self {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        let detail = format!("{why}; try again in {seconds} s");
        Self::new(Kind::SlowDown, detail).with(RETRY_AFTER_MEMBER, seconds)
    }

    /// What is not expected, and was logged.
    pub fn bug() -> Self {
        let detail = "the control plane has a bug here; its log tells more";
        Self::new(Kind::Internal, detail)
    }

    /// Tells who has what was asked for.
    #[must_use]
    pub fn held_by(mut self, holder: Holder) -> Self {
        self.document.holder = Some(holder);
        self
    }

    /// Adds an extension member (RFC 9457 section 3.2).
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        let members = &mut self.document.members;
        members.insert(member.to_owned(), value.into());
        self
    }

    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The document as JSON.
    pub(crate) fn json(&self) -> Vec<u8> {
        // Serialising strings and integers to memory does not fail; were it to, the status still tells.
        serde_json::to_vec(&self.document).unwrap_or_default()
    }
}

/// The status that a kind is answered with.
pub(crate) fn status(kind: Kind) -> StatusCode {
    // A kind's status is one of an error.
    StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = status(self.kind);
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
        // What goes with these is in RFC 9110 sections 15.5.2 and 15.5.22, and RFC 6585 section 4.
        match status {
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer realm=\"quilt-mesh\"");
                headers.insert(WWW_AUTHENTICATE, scheme);
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(UPGRADE, HeaderValue::from_static("TLS/1.3"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = self.document.members.get(RETRY_AFTER_MEMBER);
                let seconds = seconds.and_then(Value::as_u64).unwrap_or(1);
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            _ => {}
        }
        response
    }
}
