//! Where the daemons of this host are.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use mesh_client::{
    AgentClient, AgentClientError, ClientError, DEFAULT_AGENT_SOCKET, DEFAULT_SOCKET, Inspector,
    mesh::AgentStatus,
};

/// Where the daemons of this host are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// The runtime's Unix socket.
    #[arg(
        long,
        env = "QUILT_MESH_SOCKET",
        value_name = "PATH",
        default_value = DEFAULT_SOCKET,
        global = true
    )]
    pub(crate) socket: PathBuf,

    /// The runtime's TCP port (its --grpc-addr), by which those are told its state and peers who may not use the socket.
    #[arg(
        long,
        env = "QUILT_MESH_GRPC_ADDR",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:50051",
        global = true
    )]
    pub(crate) grpc_addr: SocketAddr,

    /// The agent's Unix socket.
    #[arg(
        long,
        env = "QUILT_MESH_AGENT_SOCKET",
        value_name = "PATH",
        default_value = DEFAULT_AGENT_SOCKET,
        global = true
    )]
    pub(crate) agent_socket: PathBuf,
}

/// What keeps a look at the runtime from being one.
#[derive(Debug)]
pub(crate) enum NoRuntime {
    /// Nobody serves there.
    Down(ClientError),
    /// It may be there, and cannot be asked.
    CannotTell(anyhow::Error),
}

/// The same of the agent.
#[derive(Debug)]
pub(crate) enum NoAgent {
    /// Nobody serves there, or nobody answers.
    Down(AgentClientError),
    /// It may be there, and cannot be asked.
    CannotTell(anyhow::Error),
}

impl NoRuntime {
    /// For whoever needs it.
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Down(error) => error.into(),
            Self::CannotTell(error) => error,
        }
    }
}

impl Place {
    /// The runtime: by its socket, or where there is none for this user by its TCP port.
    pub(crate) async fn runtime(&self) -> Result<Inspector, NoRuntime> {
        let error = match Inspector::connect(&self.socket).await {
            Ok(inspector) => return Ok(inspector),
            Err(error) => error,
        };
        let ClientError::Connect { reason, .. } = &error else {
            return Err(NoRuntime::CannotTell(error.into()));
        };
        let denied = reason.kind() == std::io::ErrorKind::PermissionDenied;
        match Inspector::connect_tcp(self.grpc_addr).await {
            Ok(inspector) => Ok(inspector),
            Err(_) if denied => {
                let why = "only root is told, because its TCP port cannot be used instead";
                Err(NoRuntime::CannotTell(
                    anyhow::Error::from(error).context(why),
                ))
            }
            Err(_) => Err(NoRuntime::Down(error)),
        }
    }

    /// What the agent says of itself, or why it does not.
    pub(crate) async fn agent(&self) -> Result<AgentStatus, NoAgent> {
        let told = async {
            AgentClient::connect(&self.agent_socket)
                .await?
                .status()
                .await
        };
        told.await.map_err(|error| match &error {
            AgentClientError::Connect { reason, .. }
                if reason.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                NoAgent::CannotTell(error.into())
            }
            _ => NoAgent::Down(error),
        })
    }

    /// The options that lead another `meshctl` to the same daemons.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let socket = |path: &Path| path.display().to_string();
        vec![
            format!("--socket={}", socket(&self.socket)),
            format!("--grpc-addr={}", self.grpc_addr),
            format!("--agent-socket={}", socket(&self.agent_socket)),
        ]
    }

    /// The runtime, which has to be there, by its socket.
    pub(crate) async fn runtime_socket(&self) -> anyhow::Result<Inspector> {
        let connected = Inspector::connect(&self.socket).await;
        connected.context("cannot look into this node")
    }
}
