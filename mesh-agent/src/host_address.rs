//! The host address task: notices that this node's address on the underlay changed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::lookup_host,
    sync::watch,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::{
    control_plane::ControlPlane,
    underlay::{parse_underlay_address, source_address_towards},
};

/// Longest time between two looks. A look costs two system calls and no packet.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);

/// How long the control plane's name may take to resolve.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(1);

/// Where the node's address comes from.
#[derive(Debug, Clone)]
pub enum HostAddress {
    /// The operator gave it.
    Fixed(Ipv4Addr),
    /// It is the source address towards the control plane.
    Source {
        /// What it is at the start.
        address: Ipv4Addr,
        /// Host and port of the control plane. With several replicas always the first, so
        /// that a node with two networks does not change its address with the replica.
        towards: String,
    },
}

impl HostAddress {
    /// The address at the start.
    #[must_use]
    pub fn at_start(&self) -> Ipv4Addr {
        match self {
            Self::Fixed(address) | Self::Source { address, .. } => *address,
        }
    }
}

/// Publishes the address each time it changes, until `stop`.
pub async fn run(
    control_plane: ControlPlane,
    address: HostAddress,
    interval: Duration,
    published: watch::Sender<Ipv4Addr>,
    stop: CancellationToken,
) {
    let towards = match address {
        HostAddress::Source { towards, .. } => towards,
        HostAddress::Fixed(_) => return stop.cancelled().await,
    };
    let mut ticks = tokio::time::interval(interval.min(LONGEST_INTERVAL));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let found = tokio::select! {
            () = stop.cancelled() => return,
            found = look(&towards) => found,
        };
        let before = *published.borrow();
        match found {
            Ok(now) if now != before => {
                info!(%before, %now, "this node's address changed");
                // What is connected from an address that is gone only runs into deadlines.
                if let Err(error) = control_plane.renew_connections() {
                    error!(%error, "cannot make new connections to the control plane; restart the agent");
                }
                published.send_replace(now);
            }
            Ok(_) => {}
            // No route, no name: an address that cannot be found is not another address.
            Err(reason) => debug!(reason, "cannot look up this node's address"),
        }
    }
}

async fn look(towards: &str) -> Result<Ipv4Addr, String> {
    let remotes = match timeout(RESOLVE_DEADLINE, lookup_host(towards)).await {
        Ok(remotes) => remotes.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("{towards}: no address within {RESOLVE_DEADLINE:?}")),
    };
    source_address(remotes)
}

/// The source address towards the first of the addresses, IPv4 before IPv6.
///
/// # Errors
/// If there is none that can be a node's.
pub fn source_address(remotes: impl Iterator<Item = SocketAddr>) -> Result<Ipv4Addr, String> {
    let remote = remotes.min_by_key(|remote| !remote.is_ipv4());
    let remote = remote.ok_or("the control plane's name has no address")?;
    let address = source_address_towards(remote).map_err(|error| error.to_string())?;
    parse_underlay_address(&address.to_string())
        .map_err(|error| format!("source address {address}: {error}"))
}
