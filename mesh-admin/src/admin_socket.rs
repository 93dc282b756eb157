//! The admin socket of a control plane on this host: who may open that may do everything.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use mesh_rest::client::{Client, Connections};

use crate::door::Answer;
use crate::error::AdminError;
use crate::rest::{CONNECT_DEADLINE, RestError, USER_AGENT, control_url};

/// Where it is unless the control plane is told otherwise.
pub const DEFAULT_ADMIN_SOCKET: &str = "/var/lib/quilt-mesh/admin.sock";

/// How long an answer is waited for: longer than the control plane itself takes for any.
const DEADLINE: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 << 20;

/// What stands for it in a URL.
const BASE: &str = "http://localhost/";

/// See the module.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
}

impl AdminSocket {
    /// The one with this path.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Whether there is somebody who listens.
    #[must_use]
    pub fn is_there(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.path).is_ok()
    }

    /// A client that asks over it.
    pub(crate) fn client(&self) -> Result<Client, RestError> {
        let connections = Connections::over_socket(CONNECT_DEADLINE, USER_AGENT, &self.path);
        let connections = connections.map_err(RestError::Client)?;
        Ok(Client::new(connections, control_url(BASE)?, DEADLINE))
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, AdminError> {
        let asked = tokio::time::timeout(DEADLINE, self.ask_without_deadline(method, path, body));
        asked.await.map_err(|_| AdminError::Silent(DEADLINE))?
    }

    async fn ask_without_deadline(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, AdminError> {
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|error| self.not_reached(error))?;
        let ended = |error: &dyn std::fmt::Display| AdminError::Ended(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ended(&error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|error| ended(&error))?;
        let answered = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| ended(&error))?;
            let status = response.status().as_u16();
            let answer = Limited::new(response.into_body(), LONGEST).collect().await;
            let answer = answer.map_err(|error| ended(&error))?;
            Ok((status, answer.to_bytes().to_vec()))
        };
        tokio::pin!(answered, connection);
        tokio::select! {
            answer = &mut answered => answer,
            over = &mut connection => {
                over.map_err(|error| ended(&error))?;
                answered.await
            }
        }
    }

    fn not_reached(&self, reason: io::Error) -> AdminError {
        let path = self.path.clone();
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => AdminError::NoSocket(path),
            _ => AdminError::ClosedSocket { path, reason },
        }
    }
}
