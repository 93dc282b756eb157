//! The container runtime's gRPC interface, from the agent's side.

use std::{io, sync::Mutex, time::Duration};

use hyper_util::rt::TokioIo;
use ipnet::Ipv4Net;
use mesh_proto::{
    mesh::{
        CheckPeersRequest, CheckPeersResponse, GetCapabilitiesRequest, GetCapabilitiesResponse,
        GetStatusRequest, GetStatusResponse, ListPeersRequest, ListPeersResponse,
        ProbePeersRequest, ProbePeersResponse, SyncPeersRequest, SyncPeersResponse,
        mesh_dataplane_client::MeshDataplaneClient,
    },
    quilt::{
        ConfigureNodeSubnetRequest, InjectRouteRequest, RemoveRouteRequest,
        quilt_runtime_client::QuiltRuntimeClient,
    },
};
use tokio::time::timeout;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use mesh_rest::client::with_causes;

use crate::{
    excerpt::Excerpt,
    runtime_place::{Opened, RuntimePlace, Way},
};

/// Largest answer that is read, in bytes. `SyncPeers` may name every peer as rejected, and
/// `ListPeers` names every one.
const ANSWER_LIMIT: usize = 16 << 20;

/// The connection to the runtime is of no use any more, and what the runtime knows is
/// unknown: it may have restarted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeLost {
    /// No connection.
    #[error(
        "no connection to the runtime at {place}: {reason}; is it running, and is --quilt-runtime right?"
    )]
    Connect {
        /// Where it was looked for.
        place: String,
        /// The cause, with its causes.
        reason: String,
    },
    /// No answer within the deadline.
    #[error("{call}: the runtime did not answer within {deadline:?}")]
    TimedOut {
        /// The RPC.
        call: &'static str,
        /// The deadline.
        deadline: Duration,
    },
    /// The connection broke, or the runtime says that it is not there for us.
    #[error("{call}: {reason}")]
    Broken {
        /// The RPC.
        call: &'static str,
        /// The cause, with its causes.
        reason: String,
    },
}

/// Why a call did not do what it asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answered.
    #[error(transparent)]
    Lost(#[from] RuntimeLost),
    /// The runtime does not serve this call.
    #[error("{call}: the runtime does not serve it")]
    Unimplemented {
        /// The RPC.
        call: &'static str,
    },
    /// The runtime refuses, and says why.
    #[error("refused: {}", Excerpt(.0))]
    Refused(String),
    /// The runtime failed; whether it did what was asked is unknown.
    #[error("{call}: {code:?}: {}", Excerpt(.message))]
    Failed {
        /// The RPC.
        call: &'static str,
        /// The gRPC status.
        code: Code,
        /// Its message.
        message: String,
    },
}

/// Where the runtime is and how long it may take.
#[derive(Debug, Clone)]
pub struct RuntimeAddress {
    /// Where it serves.
    pub place: RuntimePlace,
    /// Deadline of each call.
    pub deadline: Duration,
    /// Deadline until the connection stands.
    pub connect_deadline: Duration,
}

/// One connection to the runtime.
///
/// A gRPC channel reconnects by itself, which would hide that the runtime restarted and
/// forgot what it was told. This one carries exactly one connection: when that ends, every
/// call says so, and the caller connects anew knowing that it speaks to somebody new.
#[derive(Debug, Clone)]
pub struct RuntimeConnection {
    quilt: QuiltRuntimeClient<Channel>,
    mesh: MeshDataplaneClient<Channel>,
    deadline: Duration,
    /// How it was opened.
    way: Way,
}

impl RuntimeAddress {
    /// Connects.
    ///
    /// # Errors
    /// If there is no connection within the deadline.
    pub async fn connect(&self) -> Result<RuntimeConnection, RuntimeLost> {
        let failed = |reason| RuntimeLost::Connect {
            place: self.place.to_string(),
            reason,
        };
        let attempt = async {
            let Opened { stream, name, way } =
                self.place.open().await.map_err(|e| e.to_string())?;
            // TLS, if it is to be, is the stream's.
            let endpoint =
                Endpoint::from_shared(format!("http://{name}")).map_err(|e| with_causes(&e))?;
            let once = Mutex::new(Some(stream));
            let connector = service_fn(move |_: Uri| {
                let stream = once.lock().ok().and_then(|mut stream| stream.take());
                async { stream.map(TokioIo::new).ok_or_else(connection_ended) }
            });
            let channel = endpoint.connect_with_connector(connector).await;
            let channel = channel.map_err(|e| with_causes(&e))?;
            Ok((channel, way))
        };
        match timeout(self.connect_deadline, attempt).await {
            Ok(Ok((channel, way))) => Ok(RuntimeConnection {
                quilt: QuiltRuntimeClient::new(channel.clone()),
                mesh: MeshDataplaneClient::new(channel).max_decoding_message_size(ANSWER_LIMIT),
                deadline: self.deadline,
                way,
            }),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(_) => Err(failed(format!("none within {:?}", self.connect_deadline))),
        }
    }

    /// Whether a call failed because agents, or this one's user, are not served where nobody said that they are: the next
    /// connection leads elsewhere then.
    pub fn is_elsewhere(&self, connection: &RuntimeConnection, failure: &CallError) -> bool {
        let for_others = match failure {
            CallError::Failed { code, .. } => *code == Code::PermissionDenied,
            CallError::Unimplemented { .. } => true,
            _ => false,
        };
        for_others && self.place.give_up(connection.way)
    }

    /// Whether the runtime is to be reached in a better way by now than over this connection.
    pub async fn has_better_than(&self, connection: &RuntimeConnection) -> bool {
        self.place.has_better_than(connection.way).await
    }
}

fn connection_ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection ended")
}

impl RuntimeConnection {
    /// `ConfigureNodeSubnet`.
    ///
    /// # Errors
    /// If the runtime refuses, fails or is lost.
    pub async fn configure_node_subnet(&mut self, subnet: Ipv4Net) -> Result<(), CallError> {
        let subnet = subnet.to_string();
        let request = ConfigureNodeSubnetRequest { subnet };
        let call = self.quilt.configure_node_subnet(request);
        let answer = within(self.deadline, "ConfigureNodeSubnet", call).await?;
        accepted(answer.success, answer.error)
    }

    /// `InjectRoute`.
    ///
    /// # Errors
    /// If the runtime refuses, fails or is lost.
    pub async fn inject_route(
        &mut self,
        destination: Ipv4Net,
        via_interface: &str,
    ) -> Result<(), CallError> {
        let request = InjectRouteRequest {
            destination: destination.to_string(),
            via_interface: via_interface.to_owned(),
        };
        let call = self.quilt.inject_route(request);
        let answer = within(self.deadline, "InjectRoute", call).await?;
        accepted(answer.success, answer.error)
    }

    /// `RemoveRoute`.
    ///
    /// # Errors
    /// If the runtime refuses, fails or is lost.
    pub async fn remove_route(&mut self, destination: Ipv4Net) -> Result<(), CallError> {
        let destination = destination.to_string();
        let request = RemoveRouteRequest { destination };
        let call = self.quilt.remove_route(request);
        let answer = within(self.deadline, "RemoveRoute", call).await?;
        accepted(answer.success, answer.error)
    }

    /// `SyncPeers`. A refusal is an answer, not an error: it carries the generation that
    /// the runtime shows.
    ///
    /// # Errors
    /// If the runtime does not serve the call, fails or is lost.
    pub async fn sync_peers(
        &mut self,
        request: SyncPeersRequest,
    ) -> Result<SyncPeersResponse, CallError> {
        within(self.deadline, "SyncPeers", self.mesh.sync_peers(request)).await
    }

    /// `ListPeers`.
    ///
    /// # Errors
    /// If the runtime does not serve the call, fails or is lost.
    pub async fn list_peers(&mut self) -> Result<ListPeersResponse, CallError> {
        let call = self.mesh.list_peers(ListPeersRequest {});
        within(self.deadline, "ListPeers", call).await
    }

    /// `GetStatus`.
    ///
    /// # Errors
    /// If the runtime does not serve the call, fails or is lost.
    pub async fn get_status(&mut self) -> Result<GetStatusResponse, CallError> {
        let call = self.mesh.get_status(GetStatusRequest {});
        within(self.deadline, "GetStatus", call).await
    }

    /// `GetCapabilities`.
    ///
    /// # Errors
    /// If the runtime does not serve the call, fails or is lost.
    pub async fn get_capabilities(&mut self) -> Result<GetCapabilitiesResponse, CallError> {
        let call = self.mesh.get_capabilities(GetCapabilitiesRequest {});
        within(self.deadline, "GetCapabilities", call).await
    }

    /// `ProbePeers`, which may take as long as it is told to wait.
    ///
    /// # Errors
    /// If the runtime does not serve the call, fails or is lost.
    pub async fn probe_peers(
        &mut self,
        request: ProbePeersRequest,
    ) -> Result<ProbePeersResponse, CallError> {
        let wait = Duration::from_millis(request.timeout_ms.into());
        let call = self.mesh.probe_peers(request);
        within(self.deadline + wait, "ProbePeers", call).await
    }

    /// `CheckPeers`, which may take as long as it is told to.
    ///
    /// # Errors
    /// If the runtime does not serve the call, fails or is lost.
    pub async fn check_peers(
        &mut self,
        request: CheckPeersRequest,
    ) -> Result<CheckPeersResponse, CallError> {
        let wait = Duration::from_millis(request.deadline_ms.into());
        let call = self.mesh.check_peers(request);
        within(self.deadline + wait, "CheckPeers", call).await
    }
}

async fn within<T>(
    deadline: Duration,
    call: &'static str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    match timeout(deadline, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed(call, &status)),
        Err(_) => Err(RuntimeLost::TimedOut { call, deadline }.into()),
    }
}

fn failed(call: &'static str, status: &Status) -> CallError {
    // A status made on this side, because the connection broke, has a source; one that the
    // runtime sent has none.
    let source = std::error::Error::source(status);
    match status.code() {
        Code::Unimplemented if source.is_none() => CallError::Unimplemented { call },
        Code::Unavailable | Code::Cancelled => broken(call, status),
        _ if source.is_some() => broken(call, status),
        code => CallError::Failed {
            call,
            code,
            message: status.message().to_owned(),
        },
    }
}

fn broken(call: &'static str, status: &Status) -> CallError {
    let causes = std::error::Error::source(status).map(with_causes);
    let reason = causes.unwrap_or_else(|| Excerpt(status.message()).to_string());
    RuntimeLost::Broken { call, reason }.into()
}

fn accepted(success: bool, error: String) -> Result<(), CallError> {
    if success {
        Ok(())
    } else {
        Err(CallError::Refused(error))
    }
}

/// Takes the loss of the runtime, which ends everything, out of the errors that only end a
/// call.
///
/// # Errors
/// If the runtime is lost.
pub fn unless_lost<T>(result: Result<T, CallError>) -> Result<Result<T, CallError>, RuntimeLost> {
    match result {
        Err(CallError::Lost(lost)) => Err(lost),
        other => Ok(other),
    }
}
