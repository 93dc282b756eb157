//! DEL: the container's interface and address go. What is gone already is success, and so is a runtime that is not there.

use crate::{call::Call, failure::Failure, network::Network};

/// Detaches the container.
pub(crate) async fn del(call: &Call, network: &Network) -> Result<(), Failure> {
    Ok(call.interface(network)?.detach().await?)
}
