//! Looking at the runtime of this host, and at what it knows of the network.

use std::{io, net::SocketAddr, path::Path};

use mesh_proto::mesh::{
    CheckFirewallRequest, CheckFirewallResponse, GetStatusRequest, GetStatusResponse,
    ListAddressesRequest, ListAddressesResponse, ListPeersRequest, ListPeersResponse,
    ListRoutesRequest, WantedRoute, mesh_dataplane_client::MeshDataplaneClient,
    mesh_inspect_client::MeshInspectClient,
};
use tonic::transport::{self, Channel};

use crate::client::{ANSWER_LIMIT, CALL_DEADLINE, CONNECT_DEADLINE, ClientError, channel, runtime};

/// Looks at the runtime of this host. None of its calls changes anything.
#[derive(Clone, Debug)]
pub struct Inspector {
    dataplane: MeshDataplaneClient<Channel>,
    inspect: MeshInspectClient<Channel>,
}

impl Inspector {
    /// Looks through the runtime's Unix socket, by which all is told.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`], with what to do.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let endpoint = runtime().timeout(CALL_DEADLINE);
        Ok(Self::over(channel(socket, endpoint).await?))
    }

    /// Looks through the runtime's TCP port, by which [`Self::status`] and [`Self::peers`] are told to everybody on this
    /// host, and the rest to nobody.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub async fn connect_tcp(address: SocketAddr) -> Result<Self, ClientError> {
        let failed = |error| ClientError::Connect {
            path: address.to_string().into(),
            hint: "is quilt-runtime running, and with this --grpc-addr?",
            reason: io::Error::other(error),
        };
        let endpoint = transport::Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint
            .map_err(failed)?
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(CALL_DEADLINE)
            .connect()
            .await
            .map_err(failed)?;
        Ok(Self::over(channel))
    }

    fn over(channel: Channel) -> Self {
        Self {
            dataplane: MeshDataplaneClient::new(channel.clone())
                .max_decoding_message_size(ANSWER_LIMIT),
            inspect: MeshInspectClient::new(channel).max_decoding_message_size(ANSWER_LIMIT),
        }
    }

    /// The state of the node's data plane.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; so for every call here.
    pub async fn status(&mut self) -> Result<GetStatusResponse, ClientError> {
        Ok(self
            .dataplane
            .get_status(GetStatusRequest {})
            .await?
            .into_inner())
    }

    /// The peers as the kernel shows them, with their counters.
    ///
    /// # Errors
    ///
    /// See [`Self::status`].
    pub async fn peers(&mut self) -> Result<ListPeersResponse, ClientError> {
        Ok(self
            .dataplane
            .list_peers(ListPeersRequest {})
            .await?
            .into_inner())
    }

    /// The leased addresses.
    ///
    /// # Errors
    ///
    /// See [`Self::status`].
    pub async fn addresses(&mut self) -> Result<ListAddressesResponse, ClientError> {
        let all = ListAddressesRequest::default();
        Ok(self.dataplane.list_addresses(all).await?.into_inner())
    }

    /// The packet filter: what is wanted, and what the kernel has at this moment.
    ///
    /// # Errors
    ///
    /// See [`Self::status`].
    pub async fn firewall(&mut self) -> Result<CheckFirewallResponse, ClientError> {
        let answer = self.inspect.check_firewall(CheckFirewallRequest {}).await?;
        Ok(answer.into_inner())
    }

    /// The routes that are wanted, by destination.
    ///
    /// # Errors
    ///
    /// See [`Self::status`].
    pub async fn routes(&mut self) -> Result<Vec<WantedRoute>, ClientError> {
        let answer = self.inspect.list_routes(ListRoutesRequest {}).await?;
        Ok(answer.into_inner().routes)
    }
}
