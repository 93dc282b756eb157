//! A request, and what its answer is.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, header::CONTENT_TYPE};
use serde::{Serialize, de::DeserializeOwned};

use super::{CallError, Notices, Tokens, error, notice};
use crate::{heartbeat_token::HEADER, problem::ProblemDocument, problem_kind::Kind};

/// Largest answer that is read, in bytes: the list of 65,536 nodes is about 15 MB.
pub const ANSWER_LIMIT: usize = 16 << 20;

/// Largest traffic matrix that is read, in bytes: that of a million flows is about 250 MB.
pub const TRAFFIC_LIMIT: usize = 512 << 20;

/// Largest error body that is read, in bytes.
const PROBLEM_LIMIT: usize = 64 << 10;

/// A request with what it is called in errors.
#[derive(Debug)]
pub(super) struct Call<'a> {
    name: String,
    request: RequestBuilder,
    deadline: Duration,
    /// Where the token goes that is answered.
    tokens: Option<&'a dyn Tokens>,
    /// Where goes what the answer says beside its body.
    notices: Option<&'a dyn Notices>,
}

impl<'a> Call<'a> {
    pub(super) fn new(client: &Client, method: Method, url: Url, deadline: Duration) -> Self {
        Self {
            name: format!("{method} {url}"),
            request: client.request(method, url).timeout(deadline),
            deadline,
            tokens: None,
            notices: None,
        }
    }

    /// Shows an operator's token.
    pub(super) fn bearing(self, token: Option<&str>) -> Self {
        let request = match token {
            Some(token) => self.request.bearer_auth(token),
            None => self.request,
        };
        Self { request, ..self }
    }

    /// Hands on what the answer says beside its body.
    pub(super) fn noticing(self, notices: Option<&'a dyn Notices>) -> Self {
        Self { notices, ..self }
    }

    /// Shows the token of this host, and keeps the one that is answered.
    pub(super) fn showing(self, tokens: Option<&'a dyn Tokens>) -> Self {
        let request = match tokens.and_then(Tokens::token) {
            Some(token) => self.request.header(HEADER, token.to_string()),
            None => self.request,
        };
        Self {
            request,
            tokens,
            ..self
        }
    }

    pub(super) fn with(self, body: &impl Serialize) -> Self {
        Self {
            request: self.request.json(body),
            ..self
        }
    }

    /// With a body that is JSON already.
    pub(super) fn with_json(self, text: &str) -> Self {
        let request = self.request.header(CONTENT_TYPE, "application/json");
        Self {
            request: request.body(text.to_owned()),
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

    /// Sends it; the answer has to be JSON.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, CallError> {
        self.json_within(ANSWER_LIMIT).await
    }

    /// Sends it; the answer has to be JSON of no more than so many bytes.
    pub(super) async fn json_within<T: DeserializeOwned>(
        self,
        limit: usize,
    ) -> Result<T, CallError> {
        let (name, deadline) = (self.name.clone(), self.deadline);
        let response = self.answer().await?;
        let body = body(&name, deadline, response, limit).await?;
        serde_json::from_slice(&body).map_err(|error| CallError::Malformed {
            call: name,
            reason: error.to_string(),
        })
    }

    /// Sends it; the answer's status, and its body.
    pub(super) async fn status_and_body(self) -> Result<(u16, Vec<u8>), CallError> {
        let (call, deadline) = (self.name, self.deadline);
        let sent = self.request.send().await;
        let response = sent.map_err(|error| failed(&call, deadline, &error))?;
        let status = response.status().as_u16();
        if let Some(notices) = self.notices {
            notices.take(notice::of(&response));
        }
        let body = body(&call, deadline, response, ANSWER_LIMIT).await?;
        Ok((status, body))
    }

    /// Sends it; success is all there is to know.
    pub(super) async fn done(self) -> Result<(), CallError> {
        let (name, deadline) = (self.name.clone(), self.deadline);
        let response = self.answer().await?;
        // Read to the end, or the connection cannot be used again.
        body(&name, deadline, response, PROBLEM_LIMIT)
            .await
            .map(drop)
    }

    /// Sends it about a node; 404 means that the node is unknown.
    pub(super) async fn about_node(self) -> Result<(), CallError> {
        let call = self.name.clone();
        match self.done().await {
            Err(CallError::Status { status, .. }) if status == StatusCode::NOT_FOUND => {
                Err(CallError::UnknownNode { call })
            }
            done => done,
        }
    }

    /// Sends it; anything but 2xx is an error that carries what the body says.
    async fn answer(self) -> Result<Response, CallError> {
        let (call, deadline) = (self.name, self.deadline);
        let sent = self.request.send().await;
        let response = sent.map_err(|error| failed(&call, deadline, &error))?;
        let status = response.status();
        if let Some(notices) = self.notices {
            notices.take(notice::of(&response));
        }
        if status.is_success() {
            let answered = response.headers().get(HEADER);
            let answered = answered.and_then(|value| value.to_str().ok()?.parse().ok());
            if let (Some(tokens), Some(token)) = (self.tokens, answered) {
                tokens.keep(token);
            }
            return Ok(response);
        }
        let body = body(&call, deadline, response, PROBLEM_LIMIT).await;
        // What cannot be read to the end says nothing.
        let body = body.unwrap_or_default();
        let problem: Option<Box<ProblemDocument>> = serde_json::from_slice(&body).ok();
        let detail = detail(problem.as_deref(), &body);
        match problem.as_ref().and_then(|problem| problem.kind()) {
            Some(Kind::UnknownNode) => Err(CallError::UnknownNode { call }),
            Some(Kind::Copy) => Err(CallError::Copy { call, detail }),
            _ => Err(CallError::Status {
                call,
                status,
                detail,
                problem,
            }),
        }
    }
}

async fn body(
    call: &str,
    deadline: Duration,
    mut response: Response,
    limit: usize,
) -> Result<Vec<u8>, CallError> {
    let too_large = || CallError::TooLarge {
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

fn failed(call: &str, deadline: Duration, error: &reqwest::Error) -> CallError {
    let call = call.to_owned();
    if error.is_timeout() {
        return CallError::TimedOut { call, deadline };
    }
    error::unreachable(call, error)
}

/// What an error body says: title and detail of a problem document, else the beginning of the
/// text.
fn detail(problem: Option<&ProblemDocument>, body: &[u8]) -> String {
    let said = problem.map(|problem| (problem.title.as_str(), problem.detail.as_str()));
    let text = match said {
        None | Some(("", "")) => String::from_utf8_lossy(body).trim().to_owned(),
        Some((text, "")) | Some(("", text)) => text.to_owned(),
        Some((title, detail)) => format!("{title}: {detail}"),
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

    fn said(body: &[u8]) -> String {
        let problem: Option<ProblemDocument> = serde_json::from_slice(body).ok();
        detail(problem.as_ref(), body)
    }

    #[test]
    fn a_problem_document_is_shown_as_a_sentence() {
        assert_eq!(
            said(br#"{"type":"x","title":"Conflict","detail":"held by node7","status":409}"#),
            " (Conflict: held by node7)"
        );
        assert_eq!(said(br#"{"title":"Conflict"}"#), " (Conflict)");
        assert_eq!(said(br#"{"detail":"held"}"#), " (held)");
        assert_eq!(said(br#"{"error":"held"}"#), r#" ({"error":"held"})"#);
        assert_eq!(said(b"<html>\noops</html>"), " (<html>oops</html>)");
        assert_eq!(said(b""), "");
        assert!(said(&[b'x'; 60_000]).len() < 600);
    }
}
