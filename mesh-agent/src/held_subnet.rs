//! What the node holds from before its registration: the subnet that its containers have addresses of, and
//! the overlay that they use.

use std::time::Duration;

use ipnet::Ipv4Net;
use mesh_proto::mesh::GetStatusResponse;
use mesh_rest::mtu::mtu;
use tokio::time::timeout;
use tracing::debug;

use crate::{
    node::parse_subnet,
    runtime_client::{CallError, RuntimeAddress},
};

/// How long a registration waits for the runtime to say it.
const DEADLINE: Duration = Duration::from_secs(1);

/// What the runtime says that the node holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// The node's subnet.
    pub subnet: Option<Ipv4Net>,
    /// The MTU of its overlay in bytes.
    pub overlay_mtu: Option<u32>,
}

/// Asks the runtime, which remembers the subnet longer than this process. Nothing if it is away
/// or has none yet, and of a runtime that has no call for it.
pub async fn held(runtime: &RuntimeAddress) -> Held {
    match timeout(DEADLINE, ask(runtime)).await {
        Ok(Ok(status)) => Held {
            subnet: parse_subnet(&status.subnet).ok(),
            overlay_mtu: mtu(status.overlay_mtu.into()),
        },
        Ok(Err(reason)) => {
            debug!(name: "runtime-not-say-subnet-node", %reason, "the runtime does not say which subnet this node holds");
            Held::default()
        }
        Err(_) => {
            debug!(name: "runtime-not-say-within", "the runtime does not say within {DEADLINE:?} which subnet this node holds");
            Held::default()
        }
    }
}

async fn ask(runtime: &RuntimeAddress) -> Result<GetStatusResponse, CallError> {
    let mut connection = runtime.connect().await?;
    match connection.get_status().await {
        Err(failure @ CallError::Failed { .. }) if runtime.is_elsewhere(&connection, &failure) => {
            runtime.connect().await?.get_status().await
        }
        answer => answer,
    }
}
