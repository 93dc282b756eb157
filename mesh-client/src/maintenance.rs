//! What an operator asks of the runtime of a host that is to be worked on.

use std::path::Path;

use mesh_proto::mesh::{
    DrainRequest, ForgetRequest, ForgetResponse, mesh_maintenance_client::MeshMaintenanceClient,
};
use tonic::transport::Channel;

use crate::client::{CALL_DEADLINE, ClientError, channel, runtime};

/// Maintenance of this host, for root and the group of the runtime's `--socket-group`.
#[derive(Clone, Debug)]
pub struct Maintenance {
    runtime: MeshMaintenanceClient<Channel>,
}

impl Maintenance {
    /// Connects to the runtime's socket.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`], with what to do.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let channel = channel(socket, runtime().timeout(CALL_DEADLINE)).await?;
        Ok(Self {
            runtime: MeshMaintenanceClient::new(channel),
        })
    }

    /// Has the node take no new containers, or some again; `None` changes nothing. Since when it takes none, in seconds since
    /// 1970, or 0 where that is not known any more; `None`: it takes some.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if the disk does not take it, and what else goes wrong.
    pub async fn drain(&mut self, drained: Option<bool>) -> Result<Option<u64>, ClientError> {
        let answer = self.runtime.drain(DrainRequest { drained }).await?;
        let answer = answer.into_inner();
        match answer.success {
            true => Ok(answer.since),
            false => Err(ClientError::Refused(answer.error)),
        }
    }

    /// Has the runtime forget the node's subnet and all peers, and remove what was made for them, for a node that has left.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if its subnet is another one, and what else goes wrong.
    pub async fn forget(&mut self, subnet: &str) -> Result<ForgetResponse, ClientError> {
        let subnet = subnet.to_owned();
        let answer = self.runtime.forget(ForgetRequest { subnet }).await?;
        let answer = answer.into_inner();
        match answer.success {
            true => Ok(answer),
            false => Err(ClientError::Refused(answer.error)),
        }
    }
}
