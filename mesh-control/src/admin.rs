//! Asks the control plane that serves on this host, over its admin socket: who may open that may do everything.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_rest::problem::ProblemDocument;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

/// How long an answer is waited for: longer than the control plane itself takes for any.
const DEADLINE: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// The one with this socket.
    #[must_use]
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Whether there is somebody who listens.
    #[must_use]
    pub fn is_there(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.socket).is_ok()
    }

    /// What a path answers.
    ///
    /// # Errors
    ///
    /// Why not, in words for the operator; so for every method here.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.ask(Method::GET, path, None).await?;
        serde_json::from_slice(&answer).with_context(|| format!("what {path} answers is unknown"))
    }

    /// What it answers to this.
    ///
    /// # Errors
    ///
    /// See [`Self::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let body = Some(("application/json", body.to_string()));
        let answer = self.ask(Method::POST, path, body).await?;
        serde_json::from_slice(&answer).with_context(|| format!("what {path} answers is unknown"))
    }

    /// Asks for it to be done.
    ///
    /// # Errors
    ///
    /// See [`Self::get`].
    pub async fn post_json(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let body = Some(("application/json", body.to_string()));
        self.ask(Method::POST, path, body).await.map(drop)
    }

    /// Asks for it to be done.
    ///
    /// # Errors
    ///
    /// See [`Self::get`].
    pub async fn post_nothing(&self, path: &str) -> anyhow::Result<()> {
        self.ask(Method::POST, path, None).await.map(drop)
    }

    /// What it answers to nothing.
    ///
    /// # Errors
    ///
    /// See [`Self::get`].
    pub async fn ask_for<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.ask(Method::POST, path, None).await?;
        serde_json::from_slice(&answer).with_context(|| format!("what {path} answers is unknown"))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> anyhow::Result<Bytes> {
        let asked = tokio::time::timeout(DEADLINE, self.ask_without_deadline(method, path, body));
        let (status, answer) = asked
            .await
            .with_context(|| format!("no answer within {} s", DEADLINE.as_secs()))??;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        match serde_json::from_slice::<ProblemDocument>(&answer) {
            Ok(problem) if !problem.detail.is_empty() => bail!("{}", problem.detail),
            _ => bail!("{path} answered {status}"),
        }
    }

    async fn ask_without_deadline(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> anyhow::Result<(u16, Bytes)> {
        let socket = self.socket.display();
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.with_context(|| match std::fs::symlink_metadata(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => format!(
                "there is no {socket}: does quilt-mesh-control serve on this host, with this --db-path or --state-dir?"
            ),
            _ => format!(
                "cannot reach the control plane at {socket}: it is for root and for the user that it runs as"
            ),
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost");
        let body = match body {
            Some((kind, text)) => {
                request = request.header(CONTENT_TYPE, kind);
                Body::from(text)
            }
            None => Body::empty(),
        };
        let request = request.body(body)?;
        let answered = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let answer = to_bytes(Body::new(response.into_body()), LONGEST).await?;
            anyhow::Ok((status, answer))
        };
        tokio::pin!(answered, connection);
        tokio::select! {
            answer = &mut answered => answer,
            ended = &mut connection => {
                ended.context("the connection to the control plane ended")?;
                answered.await
            }
        }
    }
}
