//! GC: frees what the engine does not know any more, and what is not there.

use mesh_client::{ClientError, mesh::ListAddressesRequest};
use mesh_plugin::RESTART;

use crate::{
    failure::{Code, Failure},
    network::{Network, ValidAttachment},
};

/// Frees leases of this engine in this network. One of whose namespace and interface both are there stays whatever the engine
/// says: it would be cut off, and two containers might get one address.
pub(crate) async fn gc(network: &Network) -> Result<(), Failure> {
    let valid = network.valid.as_ref().ok_or_else(|| {
        Failure::new(
            Code::Config,
            "cni.dev/valid-attachments is missing: GC frees nothing without knowing what is there",
        )
    })?;
    let mut client = mesh_plugin::connect(network.socket(), RESTART).await?;
    let listed = client
        .addresses(ListAddressesRequest {
            engine: network.engine.clone(),
            network: network.name.clone(),
        })
        .await?;
    let mut failure = None;
    for lease in listed.leases {
        let Some(owner) = lease.owner else { continue };
        let known = ValidAttachment {
            container: owner.container.clone(),
            interface: owner.interface.clone(),
        };
        if lease.leaked.is_empty() || valid.contains(&known) {
            continue;
        }
        // It may be in use by now.
        match client.detach_if_leaked(owner).await {
            Ok(()) => {}
            // Nor would it answer for the next.
            Err(error @ (ClientError::Silent(_) | ClientError::Connect { .. })) => {
                return Err(error.into());
            }
            // The others are freed all the same.
            Err(error) => {
                failure.get_or_insert(Failure::from(error));
            }
        }
    }
    failure.map_or(Ok(()), Err)
}
