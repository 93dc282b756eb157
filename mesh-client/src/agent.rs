//! The agent's Unix socket, on which it tells how it fares.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_proto::mesh::{
    AgentStatus, AgentStatusRequest, JoinAgainRequest, LeaveRequest, LeaveResponse,
    mesh_agent_client::MeshAgentClient,
};
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Code, Status,
    transport::{self, Channel},
};

use crate::client::going_on;

/// Where the agent serves unless it is told otherwise.
pub const DEFAULT_AGENT_SOCKET: &str = "/run/quilt-mesh-agent/agent.sock";

/// The longest that connecting and a call may take each: the agent answers from what it knows.
const DEADLINE: Duration = Duration::from_secs(5);

/// The same of a node that leaves its mesh, for which the control plane is asked.
const LEAVE_DEADLINE: Duration = Duration::from_secs(15);

/// Why the agent did not tell.
#[derive(Debug, thiserror::Error)]
pub enum AgentClientError {
    /// No connection.
    #[error("no connection to the agent's socket {}: {reason}; {hint}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// The agent does not do it, and says why; all is as it was.
    #[error("{0}")]
    Refused(String),
    /// The call failed.
    #[error("the agent failed ({}): {}", .0.code(), .0.message())]
    Failed(Status),
    /// No answer in the time that it was waited for: it hangs, or was stopped.
    #[error("the agent does not answer within {} s: see whether it runs, and what its log says last", .0.as_secs())]
    Silent(Duration),
}

/// The agent of this host, behind its socket, to which it connects anew by itself.
#[derive(Clone, Debug)]
pub struct AgentClient {
    agent: MeshAgentClient<Channel>,
}

impl AgentClient {
    /// Connects to the agent's socket, which takes no privilege.
    ///
    /// # Errors
    ///
    /// [`AgentClientError::Connect`], with what to do.
    pub async fn connect(socket: &Path) -> Result<Self, AgentClientError> {
        Self::connect_for(socket, DEADLINE).await
    }

    /// The same, for calls by which the node leaves its mesh or joins again: they are for root and the agent's own user.
    ///
    /// # Errors
    ///
    /// [`AgentClientError::Connect`], with what to do.
    pub async fn connect_to_change(socket: &Path) -> Result<Self, AgentClientError> {
        Self::connect_for(socket, LEAVE_DEADLINE).await
    }

    async fn connect_for(socket: &Path, longest: Duration) -> Result<Self, AgentClientError> {
        let failed = |reason: io::Error| AgentClientError::Connect {
            path: socket.to_owned(),
            hint: hint(&reason),
            reason,
        };
        // The first time by hand: of an error of the channel little is left.
        let first = match timeout(DEADLINE, UnixStream::connect(socket)).await {
            Ok(connected) => connected.map_err(failed)?,
            Err(_) => return Err(AgentClientError::Silent(DEADLINE)),
        };
        // The name is for the protocol's header; nobody looks it up.
        let endpoint = transport::Endpoint::from_static("http://agent")
            .connect_timeout(DEADLINE)
            .timeout(longest);
        let channel = going_on(first, socket, endpoint)
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        Ok(Self {
            agent: MeshAgentClient::new(channel),
        })
    }

    /// How the agent fares.
    ///
    /// # Errors
    ///
    /// [`AgentClientError`].
    pub async fn status(&mut self) -> Result<AgentStatus, AgentClientError> {
        let answer = self.agent.get_status(AgentStatusRequest {}).await;
        let answer = answer.map(tonic::Response::into_inner);
        answer.map_err(|status| failed(status, DEADLINE))
    }

    /// Has the node leave its mesh for good. Repeating it is success.
    ///
    /// # Errors
    ///
    /// [`AgentClientError::Refused`] if it cannot leave, or whoever asks may not say so.
    pub async fn leave(&mut self) -> Result<LeaveResponse, AgentClientError> {
        let answer = self.agent.leave(LeaveRequest {}).await;
        let answer = answer.map(tonic::Response::into_inner);
        answer.map_err(|status| failed(status, LEAVE_DEADLINE))
    }

    /// Has a host that has left join again. One that has not left is success.
    ///
    /// # Errors
    ///
    /// As [`Self::leave`].
    pub async fn join_again(&mut self) -> Result<(), AgentClientError> {
        let answer = self.agent.join_again(JoinAgainRequest {}).await;
        answer
            .map(drop)
            .map_err(|status| failed(status, LEAVE_DEADLINE))
    }
}

fn failed(status: Status, deadline: Duration) -> AgentClientError {
    match status.code() {
        // What the deadline of the connection makes of a call.
        Code::Cancelled if status.message().contains("Timeout expired") => {
            AgentClientError::Silent(deadline)
        }
        Code::FailedPrecondition | Code::PermissionDenied => {
            AgentClientError::Refused(status.message().to_owned())
        }
        _ => AgentClientError::Failed(status),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "is quilt-mesh-agent running, and with this --socket? Where it may not make the socket's directory, make it \
             for the agent's user and restart the agent"
        }
        io::ErrorKind::ConnectionRefused => "quilt-mesh-agent is not running: start it",
        io::ErrorKind::PermissionDenied => {
            "the socket is for every user: let them into its directory (chmod o+x)"
        }
        _ => "is it the agent's?",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn who_finds_no_agent_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let error = async || AgentClient::connect(&path).await.unwrap_err().to_string();
        let missing = error().await;
        assert!(missing.contains("agent.sock"), "{missing}");
        assert!(missing.contains("with this --socket?"), "{missing}");
        drop(UnixListener::bind(&path).unwrap());
        let left_behind = error().await;
        assert!(left_behind.contains("is not running"), "{left_behind}");
    }

    /// It waits for the deadline.
    #[tokio::test]
    async fn an_agent_that_hangs_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let _hangs = UnixListener::bind(&path).unwrap();
        let asked = async {
            let mut agent = AgentClient::connect(&path).await?;
            agent.status().await
        };
        let error = asked.await.unwrap_err().to_string();
        assert!(error.contains("does not answer within 5 s"), "{error}");
    }
}
