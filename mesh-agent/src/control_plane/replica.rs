//! One replica of the control plane: a request, and what its answer is.

use std::time::Duration;

use mesh_rest::heartbeat_token::HEADER;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};

use super::ControlPlaneError;
use crate::{retry, token::TokenKeeper};

/// Largest answer that is read, in bytes: the list of 65,536 nodes is about 15 MB.
pub const ANSWER_LIMIT: usize = 16 << 20;

/// The type of the problem that the node has to register again.
const UNKNOWN_NODE: &str = "urn:quilt-mesh:problem:unknown-node";

/// The type of the problem that another host goes on as this node.
const COPY: &str = "urn:quilt-mesh:problem:copy";

/// Largest error body that is read, in bytes.
const PROBLEM_LIMIT: usize = 64 << 10;

/// How to speak to one replica.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) client: Client,
    pub(super) base: Url,
    /// How long an answer may take, body included.
    pub(super) deadline: Duration,
}

/// A request with what it is called in errors.
#[derive(Debug)]
pub(super) struct Call<'a> {
    name: String,
    request: RequestBuilder,
    deadline: Duration,
    /// Where the token goes that is answered.
    token: Option<&'a TokenKeeper>,
}

impl<'a> Call<'a> {
    /// Shows the token of this host, and keeps the one that is answered.
    pub(super) fn showing(self, keeper: &'a TokenKeeper) -> Self {
        let request = match keeper.token() {
            Some(token) => self.request.header(HEADER, token.to_string()),
            None => self.request,
        };
        Self {
            request,
            token: Some(keeper),
            ..self
        }
    }

    pub(super) fn with(self, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Self {
        Self {
            request: change(self.request),
            ..self
        }
    }

    /// Gives the answer this much longer, because it is told to wait.
    pub(super) fn waiting(self, wait: Duration) -> Self {
        let deadline = self.deadline + wait;
        Self {
            request: self.request.timeout(deadline),
            deadline,
            ..self
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Replica {
    pub(super) fn call(&self, method: Method, path: &[&str]) -> Call<'static> {
        self.asking(method, path, &[])
    }

    /// A call with a query.
    pub(super) fn asking(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Call<'static> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Call {
            name: format!("{method} {url}"),
            request: self.client.request(method, url).timeout(self.deadline),
            deadline: self.deadline,
            token: None,
        }
    }
}

impl Call<'_> {
    /// Sends it; the answer has to be JSON.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, ControlPlaneError> {
        let (name, deadline) = (self.name.clone(), self.deadline);
        let response = self.answer().await?;
        let body = body(&name, deadline, response, ANSWER_LIMIT).await?;
        serde_json::from_slice(&body).map_err(|error| ControlPlaneError::Malformed {
            call: name,
            reason: error.to_string(),
        })
    }

    /// Sends it about a node; 404 means that the node is unknown.
    pub(super) async fn about_node(self) -> Result<(), ControlPlaneError> {
        let (call, deadline) = (self.name.clone(), self.deadline);
        match self.answer().await {
            // Read to the end, or the connection cannot be used again.
            Ok(response) => body(&call, deadline, response, PROBLEM_LIMIT)
                .await
                .map(drop),
            Err(ControlPlaneError::Status { status, .. }) if status == StatusCode::NOT_FOUND => {
                Err(ControlPlaneError::UnknownNode { call })
            }
            Err(error) => Err(error),
        }
    }

    /// Sends it; anything but 2xx is an error that carries what the body says.
    async fn answer(self) -> Result<Response, ControlPlaneError> {
        let (call, deadline) = (self.name, self.deadline);
        let sent = self.request.send().await;
        let response = sent.map_err(|error| failed(&call, deadline, &error))?;
        let status = response.status();
        if status.is_success() {
            let answered = response.headers().get(HEADER);
            let answered = answered.and_then(|value| value.to_str().ok()?.parse().ok());
            if let (Some(keeper), Some(token)) = (self.token, answered) {
                keeper.keep(token);
            }
            return Ok(response);
        }
        let detail = match body(&call, deadline, response, PROBLEM_LIMIT).await {
            Ok(body) => match kind(&body).as_deref() {
                Some(UNKNOWN_NODE) => return Err(ControlPlaneError::UnknownNode { call }),
                Some(COPY) => {
                    let detail = problem(&body);
                    return Err(ControlPlaneError::Copy { call, detail });
                }
                _ => problem(&body),
            },
            Err(_) => String::new(),
        };
        Err(ControlPlaneError::Status {
            call,
            status,
            detail,
        })
    }
}

async fn body(
    call: &str,
    deadline: Duration,
    mut response: Response,
    limit: usize,
) -> Result<Vec<u8>, ControlPlaneError> {
    let too_large = || ControlPlaneError::TooLarge {
        call: call.to_owned(),
        limit,
    };
    if response.content_length() > Some(limit as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    let failed = |error| failed(call, deadline, &error);
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn failed(call: &str, deadline: Duration, error: &reqwest::Error) -> ControlPlaneError {
    let call = call.to_owned();
    if error.is_timeout() {
        return ControlPlaneError::TimedOut { call, deadline };
    }
    // reqwest's own line repeats the URL, which is in `call` already.
    let cause = std::error::Error::source(error);
    ControlPlaneError::Unreachable {
        call,
        reason: cause.map_or_else(|| error.to_string(), retry::with_causes),
    }
}

/// Whether the id can stand in a URL path as it is: unreserved characters of RFC 3986
/// section 2.3, and not a dot segment.
pub(super) fn is_path_segment(id: &str) -> bool {
    let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    (1..=128).contains(&id.len()) && id.chars().all(unreserved) && id != "." && id != ".."
}

/// What kind of problem an error body says it is.
fn kind(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    let kind: Kind = serde_json::from_slice(body).ok()?;
    Some(kind.r#type)
}

/// What an error body says: title and detail of a problem document (RFC 9457), else the
/// beginning of the text.
fn problem(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
    }
    let text = match serde_json::from_slice::<Problem>(body) {
        Ok(Problem {
            title: Some(title),
            detail: Some(detail),
        }) => format!("{title}: {detail}"),
        Ok(Problem {
            title: Some(text),
            detail: None,
        })
        | Ok(Problem {
            title: None,
            detail: Some(text),
        }) => text,
        _ => String::from_utf8_lossy(body).trim().to_owned(),
    };
    if text.is_empty() {
        return text;
    }
    // Long enough for a sentence that says what to do.
    let text: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
    format!(" ({text})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_from_the_network_cannot_change_the_path() {
        for id in [
            "7",
            "node-1",
            "550e8400-e29b-41d4-a716-446655440000",
            "a~b_c.d",
        ] {
            assert!(is_path_segment(id), "{id}");
        }
        for id in [
            "", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "ä", "a\n",
        ] {
            assert!(!is_path_segment(id), "{id}");
        }
        assert!(!is_path_segment(&"x".repeat(129)));
    }

    #[test]
    fn a_problem_document_is_shown_as_a_sentence() {
        assert_eq!(
            problem(br#"{"type":"x","title":"Conflict","detail":"held by node7","status":409}"#),
            " (Conflict: held by node7)"
        );
        assert_eq!(problem(b"<html>\noops</html>"), " (<html>oops</html>)");
        assert_eq!(problem(b""), "");
        assert!(problem(&[b'x'; 60_000]).len() < 600);
    }
}
