//! A host with a runtime that was told its subnet, and peers that exist on paper only.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use ipnet::Ipv4Net;
use mesh_proto::{
    mesh::{Peer, SyncPeersRequest, SyncPeersResponse, mesh_dataplane_client::MeshDataplaneClient},
    quilt::{ConfigureNodeSubnetRequest, quilt_runtime_client::QuiltRuntimeClient},
};
use mesh_testbed::{DaemonOptions, Host, Links, Testbed};
use tonic::transport::Channel;

/// The most peers a node of the default cluster CIDR can have.
pub(crate) const PEERS: u8 = 254;

/// A running runtime without agent: the bench plays the agent.
pub(crate) struct Node {
    testbed: Testbed,
    channel: Channel,
}

impl Node {
    /// A fresh host with a freshly started runtime that knows its subnet, 10.42.1.0/24.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_with(&DaemonOptions::default()).await
    }

    /// The same with options for the runtime.
    pub(crate) async fn start_with(options: &DaemonOptions) -> anyhow::Result<Self> {
        let testbed = fresh_testbed().await?;
        let host = &testbed.hosts()[0];
        host.start_runtime(options).await?;
        let channel = host.runtime_channel().await?;
        let answer = QuiltRuntimeClient::new(channel.clone())
            .configure_node_subnet(ConfigureNodeSubnetRequest {
                subnet: "10.42.1.0/24".into(),
            })
            .await?
            .into_inner();
        if !answer.success {
            bail!("ConfigureNodeSubnet is refused: {}", answer.error);
        }
        Ok(Self { testbed, channel })
    }

    pub(crate) fn host(&self) -> &Host {
        &self.testbed.hosts()[0]
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// SyncPeers with this generation and these peers; a refusal of any of them is an error.
    pub(crate) async fn sync(
        &self,
        generation: u64,
        peers: Vec<Peer>,
    ) -> anyhow::Result<SyncPeersResponse> {
        let answer = MeshDataplaneClient::new(self.channel())
            .sync_peers(SyncPeersRequest {
                generation,
                host_address: self.host().address().to_string(),
                peers,
                node_settings: None,
            })
            .await?
            .into_inner();
        if !answer.success {
            bail!("SyncPeers is refused: {}", answer.error);
        }
        if let Some(rejected) = answer.rejected.first() {
            bail!("SyncPeers rejects a peer: {}", rejected.reason);
        }
        Ok(answer)
    }
}

/// One host with a default route, so that peers anywhere have a next hop.
pub(crate) async fn fresh_testbed() -> anyhow::Result<Testbed> {
    let testbed = Testbed::builder().hosts(1).build().await?;
    let router = testbed.control().address();
    Links::of(testbed.hosts()[0].netns())?
        .add_route(Ipv4Net::default(), router)
        .await
        .context("cannot give the host a default route")?;
    Ok(testbed)
}

/// The address of a peer on paper: the range for benchmarks of RFC 2544.
pub(crate) fn peer_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, number)
}

/// All peers on paper: 10.42.2.0/24 to 10.42.255.0/24.
pub(crate) fn peers() -> Vec<Peer> {
    (1..=PEERS)
        .map(|number| Peer {
            subnet: subnet(number).to_string(),
            host_address: peer_address(number).to_string(),
            hostname: format!("paper{number}"),
            ..Peer::default()
        })
        .collect()
}

/// The subnet of a peer on paper.
pub(crate) fn subnet(number: u8) -> Ipv4Net {
    // A prefix of 24 is valid for every address.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 42, number + 1, 0), 24)
}
