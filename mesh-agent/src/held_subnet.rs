//! The subnet that this node's containers have addresses of.

use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::time::timeout;
use tracing::debug;

use crate::{
    node::parse_subnet,
    runtime_client::{CallError, RuntimeAddress},
};

/// How long a registration waits for the runtime to say it.
const DEADLINE: Duration = Duration::from_secs(1);

/// Asks the runtime, which remembers the subnet longer than this process. `None` if it is away
/// or has none yet, and of a runtime that has no call for it.
pub async fn held_subnet(runtime: &RuntimeAddress) -> Option<Ipv4Net> {
    match timeout(DEADLINE, ask(runtime)).await {
        Ok(Ok(subnet)) => parse_subnet(&subnet).ok(),
        Ok(Err(reason)) => {
            debug!(%reason, "the runtime does not say which subnet this node holds");
            None
        }
        Err(_) => {
            debug!("the runtime does not say within {DEADLINE:?} which subnet this node holds");
            None
        }
    }
}

async fn ask(runtime: &RuntimeAddress) -> Result<String, CallError> {
    let mut runtime = runtime.connect().await?;
    Ok(runtime.get_status().await?.subnet)
}
