//! The control plane's REST interface, from the node's side.

use std::time::Duration;

use backon::Retryable as _;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    excerpt::Excerpt,
    node::{NodeList, RegisterAnswer, RegisterRequest, SubnetError, parse_subnet},
    retry,
};

/// Largest answer that is read, in bytes: the list of 65,536 nodes is about 15 MB.
pub const ANSWER_LIMIT: usize = 16 << 20;

/// Largest error body that is read, in bytes.
const PROBLEM_LIMIT: usize = 64 << 10;

/// Why a call to the control plane failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// No connection, or it broke.
    #[error("{call}: {reason}; is the control plane running, and is --control-plane right?")]
    Unreachable {
        /// Method and URL.
        call: String,
        /// The cause, with its causes.
        reason: String,
    },
    /// No complete answer within the deadline.
    #[error("{call}: no complete answer within {deadline:?}")]
    TimedOut {
        /// Method and URL.
        call: String,
        /// The deadline.
        deadline: Duration,
    },
    /// The control plane does not know this node.
    #[error("{call}: the control plane does not know this node")]
    UnknownNode {
        /// Method and URL.
        call: String,
    },
    /// It answered something other than success.
    #[error("{call}: {status}{detail}")]
    Status {
        /// Method and URL.
        call: String,
        /// The HTTP status.
        status: StatusCode,
        /// What the body says about it, or nothing.
        detail: String,
    },
    /// The answer is longer than any real one.
    #[error("{call}: the answer is larger than {limit} bytes; is this a control plane?")]
    TooLarge {
        /// Method and URL.
        call: String,
        /// The limit.
        limit: usize,
    },
    /// The answer is not the JSON of the contract.
    #[error(
        "{call}: the answer is not what the contract says ({reason}); is this a control plane?"
    )]
    Malformed {
        /// Method and URL.
        call: String,
        /// What is wrong.
        reason: String,
    },
    /// The registration names a subnet that is none.
    #[error("{call}: leased subnet {}: {error}", Excerpt(.text))]
    Subnet {
        /// Method and URL.
        call: String,
        /// The subnet as answered.
        text: String,
        /// The rule it breaks.
        error: SubnetError,
    },
}

impl ControlPlaneError {
    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

/// A client of one control plane.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    client: Client,
    base: Url,
    deadline: Duration,
}

/// A node's lease, as answered to its registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The control plane's name for the node.
    pub node_id: String,
    /// Its subnet.
    pub subnet: ipnet::Ipv4Net,
}

impl ControlPlane {
    /// Makes a client for the control plane at `base` (plain http, checked by
    /// [`crate::options`]). `deadline` bounds each attempt of a call, body included;
    /// `connect_deadline` the time until the connection stands.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(
        base: Url,
        deadline: Duration,
        connect_deadline: Duration,
    ) -> Result<Self, reqwest::Error> {
        // No proxy from the environment and no redirects: a node talks to the control plane
        // it was given, not to whom a variable or an answer names.
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(deadline)
            .connect_timeout(connect_deadline)
            .pool_max_idle_per_host(2)
            .user_agent(concat!("quilt-mesh-agent/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            client,
            base,
            deadline,
        })
    }

    /// Registers the node. One attempt: how long to repeat it is the caller's decision.
    ///
    /// # Errors
    /// If the call fails or the answer names no usable node id and subnet.
    pub async fn register(&self, node: &RegisterRequest) -> Result<Lease, ControlPlaneError> {
        let (call, request) = self.call(Method::POST, &["api", "nodes", "register"]);
        let answer: RegisterAnswer = self.json(&call, request.json(node)).await?;
        if !is_path_segment(&answer.node_id) {
            let reason = format!("node_id {} is no id", Excerpt(&answer.node_id));
            return Err(ControlPlaneError::Malformed { call, reason });
        }
        match parse_subnet(&answer.subnet) {
            Ok(subnet) => Ok(Lease {
                node_id: answer.node_id,
                subnet,
            }),
            Err(error) => Err(ControlPlaneError::Subnet {
                call,
                text: answer.subnet,
                error,
            }),
        }
    }

    /// The nodes of the cluster.
    ///
    /// # Errors
    /// If every attempt fails, or the answer is not a node list.
    pub async fn nodes(&self) -> Result<NodeList, ControlPlaneError> {
        let attempt = || async {
            let (call, request) = self.call(Method::GET, &["api", "nodes"]);
            self.json(&call, request).await
        };
        attempt
            .retry(retry::within_a_round())
            .when(ControlPlaneError::is_transient)
            .await
    }

    /// Says that the node is alive.
    ///
    /// # Errors
    /// [`ControlPlaneError::UnknownNode`] if the node has to register again; any other if
    /// every attempt fails.
    pub async fn heartbeat(&self, node_id: &str) -> Result<(), ControlPlaneError> {
        let attempt = || self.post_about(node_id, "heartbeat");
        attempt
            .retry(retry::within_a_round())
            .when(ControlPlaneError::is_transient)
            .await
    }

    /// Says that the node leaves. Repeated until it succeeds or the retries end.
    ///
    /// # Errors
    /// If every attempt fails.
    pub async fn deregister(&self, node_id: &str) -> Result<(), ControlPlaneError> {
        let attempt = || self.post_about(node_id, "deregister");
        attempt
            .retry(retry::within_a_round())
            .when(ControlPlaneError::is_transient)
            .await
    }

    async fn post_about(&self, node_id: &str, verb: &str) -> Result<(), ControlPlaneError> {
        let (call, request) = self.call(Method::POST, &["api", "nodes", node_id, verb]);
        match self.answer(&call, request).await {
            // Read to the end, or the connection cannot be used again.
            Ok(response) => self.body(&call, response, PROBLEM_LIMIT).await.map(drop),
            Err(ControlPlaneError::Status { status, .. }) if status == StatusCode::NOT_FOUND => {
                Err(ControlPlaneError::UnknownNode { call })
            }
            Err(error) => Err(error),
        }
    }

    fn call(&self, method: Method, path: &[&str]) -> (String, RequestBuilder) {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let call = format!("{method} {url}");
        (call, self.client.request(method, url))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        call: &str,
        request: RequestBuilder,
    ) -> Result<T, ControlPlaneError> {
        let response = self.answer(call, request).await?;
        let body = self.body(call, response, ANSWER_LIMIT).await?;
        serde_json::from_slice(&body).map_err(|error| ControlPlaneError::Malformed {
            call: call.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Sends the request; anything but 2xx is an error that carries what the body says.
    async fn answer(
        &self,
        call: &str,
        request: RequestBuilder,
    ) -> Result<Response, ControlPlaneError> {
        let response = request.send().await.map_err(|e| self.failed(call, &e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let detail = match self.body(call, response, PROBLEM_LIMIT).await {
            Ok(body) => problem(&body),
            Err(_) => String::new(),
        };
        Err(ControlPlaneError::Status {
            call: call.to_owned(),
            status,
            detail,
        })
    }

    async fn body(
        &self,
        call: &str,
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
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failed(call, &e))? {
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn failed(&self, call: &str, error: &reqwest::Error) -> ControlPlaneError {
        let call = call.to_owned();
        if error.is_timeout() {
            return ControlPlaneError::TimedOut {
                call,
                deadline: self.deadline,
            };
        }
        // reqwest's own line repeats the URL, which is in `call` already.
        let cause = std::error::Error::source(error);
        ControlPlaneError::Unreachable {
            call,
            reason: cause.map_or_else(|| error.to_string(), retry::with_causes),
        }
    }
}

/// Whether the id can stand in a URL path as it is: unreserved characters of RFC 3986
/// section 2.3, and not a dot segment.
fn is_path_segment(id: &str) -> bool {
    let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    (1..=128).contains(&id.len()) && id.chars().all(unreserved) && id != "." && id != ".."
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

    #[test]
    fn a_path_of_the_base_url_is_kept() {
        for base in ["http://c/mesh", "http://c/mesh/"] {
            let second = Duration::from_secs(1);
            let client = ControlPlane::new(base.parse().unwrap(), second, second).unwrap();
            let (call, _) = client.call(Method::GET, &["api", "nodes"]);
            assert_eq!(call, "GET http://c/mesh/api/nodes");
        }
    }
}
