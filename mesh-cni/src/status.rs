//! STATUS: whether a container could be added now.

use std::time::Duration;

use mesh_client::mesh::ListAddressesRequest;

use crate::{
    failure::{Code, Failure},
    network::Network,
};

/// Says why none could.
pub(crate) async fn status(network: &Network) -> Result<(), Failure> {
    let unavailable = |message: String| Failure::new(Code::NotAvailable, message);
    // What is in the kernel goes on without the runtime.
    let down = |error: mesh_client::ClientError| unavailable(error.to_string());
    let mut client = mesh_plugin::connect(network.socket(), Duration::ZERO)
        .await
        .map_err(down)?;
    let status = client.status().await.map_err(down)?;
    if status.subnet.is_empty() {
        return Err(unavailable(
            "this node has no subnet yet: it gets one when its agent has joined the mesh"
                .to_owned(),
        ));
    }
    let problems = status.problems().join("; ");
    if status.host_address.is_empty() {
        return Err(unavailable(format!(
            "this node's address on the underlay is not known yet: {problems}"
        )));
    }
    if status.overlay_mtu == 0 {
        return Err(Failure::new(
            Code::Limited,
            format!(
                "this node has no overlay, so that containers reach none of other nodes: {problems}"
            ),
        ));
    }
    let request = ListAddressesRequest {
        engine: network.engine.clone(),
        network: network.name.clone(),
    };
    let addresses = client.addresses(request).await.map_err(down)?;
    if addresses.drained_since.is_some() {
        return Err(unavailable(
            "this node is drained, and takes no new containers (meshctl drain --undo)".to_owned(),
        ));
    }
    if addresses.leased >= addresses.capacity {
        return Err(unavailable(format!(
            "all {} addresses of {} are leased: see who has them with meshctl addresses",
            addresses.capacity, addresses.subnet
        )));
    }
    Ok(())
}
