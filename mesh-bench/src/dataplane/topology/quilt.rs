//! The product: quilt-runtime on both hosts, driven as an agent drives it.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use mesh_proto::{
    mesh::{Peer, SyncPeersRequest, mesh_dataplane_client::MeshDataplaneClient},
    quilt::{ConfigureNodeSubnetRequest, quilt_runtime_client::QuiltRuntimeClient},
};
use mesh_testbed::{Container, DaemonOptions, Host, wait_until};

use super::flannel::End;

/// How long is waited for what should take milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Starts the runtime of `own` with its only peer, this build's or another. The fast path is
/// required: without it the figures would be the kernel path's.
pub(crate) async fn start(
    own: End<'_>,
    peer: End<'_>,
    runtime: Option<&Path>,
) -> anyhow::Result<()> {
    let mut options = DaemonOptions::new().args(["--fast-path", "required"]);
    if let Some(runtime) = runtime {
        options = options.binary(runtime);
    }
    own.host.start_runtime(&options).await?;
    let channel = own.host.runtime_channel().await?;
    let answer = QuiltRuntimeClient::new(channel.clone())
        .configure_node_subnet(ConfigureNodeSubnetRequest {
            subnet: own.subnet.to_string(),
        })
        .await?
        .into_inner();
    ensure!(
        answer.success,
        "ConfigureNodeSubnet is refused: {}",
        answer.error
    );
    let answer = MeshDataplaneClient::new(channel)
        .sync_peers(SyncPeersRequest {
            generation: 1,
            host_address: own.host.address().to_string(),
            peers: vec![Peer {
                subnet: peer.subnet.to_string(),
                host_address: peer.host.address().to_string(),
                hostname: peer.host.name().to_owned(),
                ..Peer::default()
            }],
            node_settings: None,
        })
        .await?
        .into_inner();
    ensure!(
        answer.success && answer.rejected.is_empty(),
        "SyncPeers is refused: {} {:?}",
        answer.error,
        answer.rejected
    );
    Ok(())
}

/// Waits until the programs are attached to the container's port and know its address.
pub(crate) async fn wait_fast(host: &Host, container: &Container) -> anyhow::Result<()> {
    let address = container.address().to_string();
    let port = format!("{}: encapsulate", container.host_interface());
    wait_until("the fast path of a container", SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let fast_path = status.fast_path.unwrap_or_default();
        let attached = fast_path.attachments.contains(&port);
        let known = status.endpoints.iter().any(|it| it.address == address);
        match attached && known {
            true => Ok(()),
            false => Err(format!("{:?} {fast_path:?}", status.endpoints)),
        }
    })
    .await?;
    Ok(())
}

/// Waits until the runtime has followed the underlay to another MTU.
pub(crate) async fn wait_mtu(host: &Host, mtu: u32) -> anyhow::Result<()> {
    wait_until("the overlay's new MTU", SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match status.overlay_mtu == mtu {
            true => Ok(()),
            false => Err(format!("it is {} and not {mtu}", status.overlay_mtu)),
        }
    })
    .await?;
    Ok(())
}

/// The share of the packets sent that the programs carried, as the host counted them.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(crate) async fn fast_share(host: &Host) -> anyhow::Result<f64> {
    let (mut fast, mut kernel) = (0, 0);
    for peer in host.peers().await?.peers {
        fast += peer.fast_path.unwrap_or_default().tx_packets;
        kernel += peer.kernel_path.unwrap_or_default().tx_packets;
    }
    Ok(fast as f64 / (fast + kernel) as f64)
}
