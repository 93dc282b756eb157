//! Requests, and answers held against what every answer must be.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::process::ControlPlane;

/// A client that goes to loopback only, and never waits for ever.
pub(crate) fn client() -> Client {
    Client::builder()
        .tls_backend_preconfigured(mesh_rest::client::trusting_nobody())
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

/// An answer, checked in form: an error is a problem document (RFC 9457).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) allow: Option<String>,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        Self::try_to(request).await.unwrap()
    }

    /// Fails when the control plane dies before it answers.
    pub(crate) async fn try_to(request: RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let header = |name| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let (content_type, allow) = (header("content-type"), header("allow"));
        let text = response.text().await?;
        let body: Value = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        };
        if status >= 400 {
            assert_eq!(
                content_type.as_deref(),
                Some("application/problem+json"),
                "{status} {text}"
            );
            assert_eq!(body["status"], status, "{text}");
            for member in ["type", "title", "detail"] {
                assert!(
                    body[member].as_str().is_some_and(|text| !text.is_empty()),
                    "{member}: {text}"
                );
            }
        }
        Ok(Self {
            status,
            allow,
            body,
        })
    }

    /// The answer is this problem; returns its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> &str {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["type"], format!("urn:quilt-mesh:problem:{slug}"));
        self.body["detail"].as_str().unwrap()
    }

    /// The answer is 200; returns `(node_id, subnet)`.
    #[track_caller]
    pub(crate) fn admitted(&self) -> (String, String) {
        assert_eq!(self.status, 200, "{}", self.body);
        let text = |member| self.body[member].as_str().unwrap().to_owned();
        (text("node_id"), text("subnet"))
    }
}

/// Shorthand for a node at 192.0.2.0/24 or wherever.
pub(crate) fn node(hostname: &str, host_ip: &str) -> Value {
    json!({"hostname": hostname, "host_ip": host_ip})
}

pub(crate) fn keyed(key: &str, hostname: &str, host_ip: &str) -> Value {
    json!({"hostname": hostname, "host_ip": host_ip, "node_key": key})
}

/// The API of one control plane.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    address: SocketAddr,
}

impl Api {
    pub(crate) fn of(control_plane: &ControlPlane) -> Self {
        Self {
            client: client(),
            address: control_plane.address(),
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    pub(crate) async fn register(&self, body: Value) -> Answer {
        Answer::to(self.post("/api/nodes/register").json(&body)).await
    }

    pub(crate) async fn heartbeat(&self, node_id: &str) -> Answer {
        Answer::to(self.post(&format!("/api/nodes/{node_id}/heartbeat"))).await
    }

    pub(crate) async fn deregister(&self, node_id: &str) -> Answer {
        Answer::to(self.post(&format!("/api/nodes/{node_id}/deregister"))).await
    }

    pub(crate) async fn list(&self) -> Value {
        let answer = Answer::to(self.request(Method::GET, "/api/nodes")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    pub(crate) async fn nodes(&self) -> Vec<Value> {
        self.list().await["nodes"].as_array().unwrap().clone()
    }

    pub(crate) async fn node(&self, node_id: &str) -> Value {
        let nodes = self.nodes().await;
        nodes
            .into_iter()
            .find(|node| node["node_id"] == node_id)
            .unwrap()
    }

    pub(crate) async fn status(&self, node_id: &str) -> String {
        self.node(node_id).await["status"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until a node has a status.
    pub(crate) async fn wait_for(&self, node_id: &str, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.status(node_id).await != status {
            assert!(
                Instant::now() < deadline,
                "{node_id} did not become {status}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
