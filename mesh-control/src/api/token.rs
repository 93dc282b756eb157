//! The token by which a host shows that it is no copy of a node, in the headers of requests and answers.

use std::convert::Infallible;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};
use mesh_rest::heartbeat_token::{HEADER, HeartbeatToken};

/// What a host comes with next, as a header of the answer.
pub(super) struct NextToken(pub(super) HeartbeatToken);

impl IntoResponseParts for NextToken {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        // A token is digits and a point, which a header may have.
        if let Ok(value) = HeaderValue::try_from(self.0.to_string()) {
            parts.headers_mut().insert(HEADER, value);
        }
        Ok(parts)
    }
}

/// The token that a host comes with. One that cannot be read counts as none, as of an agent of another version.
pub(crate) fn token(headers: &HeaderMap) -> Option<HeartbeatToken> {
    let value = headers.get(HEADER)?.to_str().ok()?;
    value.parse().ok()
}
