//! From Docker's requests to its answers: each is a POST, of which the path is the call, and the body JSON whatever its content type says.

use std::sync::Arc;

use anyhow::{anyhow, bail};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{ipam_driver, network_driver, record::Records, runtime::Runtime, unfinished::News};

/// What Docker calls the content of its plugins' answers (`VersionMimetype`, pkg/plugins/transport).
const CONTENT: &str = "application/vnd.docker.plugins.v1.1+json";

/// The longest request that is read, in bytes.
const LONGEST_REQUEST: usize = 1 << 20;

/// Requests at a time; more of them wait.
const AT_A_TIME: usize = 256;

/// The plugin: what it has given to Docker, and the runtime.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) records: Records,
    pub(crate) runtime: Runtime,
    pub(crate) news: News,
    room: Semaphore,
}

impl Plugin {
    pub(crate) fn new(records: Records, runtime: Runtime) -> Self {
        Self {
            records,
            runtime,
            news: News::default(),
            room: Semaphore::new(AT_A_TIME),
        }
    }

    /// Answers a call, unless there is none of that name: Docker asks for some that a driver need not have, and expects that to be said.
    async fn answer(&self, call: &str, body: &[u8]) -> anyhow::Result<Option<Value>> {
        // No permit is refused to anybody: the semaphore is never closed.
        let _turn = self.room.acquire().await;
        Ok(Some(match call {
            "Plugin.Activate" => json!({ "Implements": ["NetworkDriver", "IpamDriver"] }),
            "IpamDriver.GetCapabilities" => ipam_driver::capabilities(),
            "IpamDriver.GetDefaultAddressSpaces" => ipam_driver::address_spaces(),
            "IpamDriver.RequestPool" => self.request_pool(read(body)?).await?,
            // There is one pool, and it stays.
            "IpamDriver.ReleasePool" => json!({}),
            "IpamDriver.RequestAddress" => self.request_address(read(body)?).await?,
            "IpamDriver.ReleaseAddress" => self.release_address(read(body)?).await?,
            "NetworkDriver.GetCapabilities" => network_driver::capabilities(),
            "NetworkDriver.CreateNetwork" => self.create_network(read(body)?)?,
            "NetworkDriver.DeleteNetwork" => self.delete_network(&read(body)?)?,
            "NetworkDriver.CreateEndpoint" => self.create_endpoint(&read(body)?).await?,
            "NetworkDriver.DeleteEndpoint" => self.delete_endpoint(&read(body)?).await?,
            "NetworkDriver.EndpointOperInfo" => json!({ "Value": {} }),
            "NetworkDriver.Join" => self.join(&read(body)?).await?,
            // The interface goes with the endpoint.
            "NetworkDriver.Leave" => json!({}),
            "NetworkDriver.ProgramExternalConnectivity" => self.publish(&read(body)?).await?,
            "NetworkDriver.RevokeExternalConnectivity" => self.unpublish(&read(body)?).await?,
            // Of swarm, which asks every driver.
            "NetworkDriver.DiscoverNew" | "NetworkDriver.DiscoverDelete" => json!({}),
            _ => return Ok(None),
        }))
    }
}

/// Reads a request; an error names the field.
fn read<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    let text = std::str::from_utf8(body);
    let text = text.map_err(|error| anyhow!("the request cannot be read: {error}"))?;
    // A list would be read as an object of which all fields are left out.
    if !text.trim_ascii_start().starts_with('{') {
        bail!("the request cannot be read: it is no object of JSON");
    }
    let mut input = serde_json::Deserializer::from_str(text);
    let request = serde_path_to_error::deserialize(&mut input)
        .map_err(|error| anyhow!("the request cannot be read: {error}"))?;
    match input.end() {
        Ok(()) => Ok(request),
        Err(error) => bail!("the request cannot be read: {error}"),
    }
}

/// The calls of one plugin.
pub(crate) fn router(plugin: Arc<Plugin>) -> Router {
    Router::new()
        .fallback(serve)
        .layer(DefaultBodyLimit::max(LONGEST_REQUEST))
        .layer(CatchPanicLayer::new())
        .with_state(plugin)
}

async fn serve(
    State(plugin): State<Arc<Plugin>>,
    method: Method,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let says = |status: StatusCode, document: &Value| {
        (status, [(CONTENT_TYPE, CONTENT)], document.to_string()).into_response()
    };
    if method != Method::POST {
        let why = failure(&format!("{method} is no method of Docker's calls: POST is"));
        return says(StatusCode::METHOD_NOT_ALLOWED, &why);
    }
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            let why = failure(&format!(
                "the request cannot be read: {}",
                error.body_text()
            ));
            return says(error.status(), &why);
        }
    };
    let call = uri.path().trim_start_matches('/').to_owned();
    // It is finished although who asked has hung up: what is half done would have to be undone.
    let answer = tokio::spawn(async move {
        let answer = plugin.answer(&call, &body).await;
        if let Err(error) = &answer {
            tracing::warn!(name: "docker-call-refused", call, error = format!("{error:#}"), "refused");
        }
        answer
    });
    let document = match answer.await {
        Ok(Ok(None)) => {
            let why = failure("there is no such call of this driver");
            return says(StatusCode::NOT_FOUND, &why);
        }
        Ok(Ok(Some(document))) => document,
        Ok(Err(error)) => failure(&format!("{error:#}")),
        Err(error) => failure(&format!("the driver failed: {error}")),
    };
    says(StatusCode::OK, &document)
}

/// An error, under both of the names that Docker looks for it: a network driver's, and an IPAM driver's.
fn failure(why: &str) -> Value {
    json!({ "Err": why, "Error": why })
}
