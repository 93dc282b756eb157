//! The host address task: notices that this node's address on the underlay changed.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use mesh_ticker::Ticker;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::{
    net::lookup_host,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::{
    control_plane::ControlPlane,
    underlay::{parse_underlay_address, source_address_towards},
};

/// Longest time between two looks: routes change as well, and a notification may be lost. A look costs two system
/// calls and no packet, unless the control plane's name has to be resolved.
pub(crate) const LONGEST_INTERVAL: Duration = Duration::from_secs(5);

/// What is waited for after an address has changed: a host may change thousands at once.
const MOMENT: Duration = Duration::from_millis(200);
/// Notifications that are taken together.
const AT_A_TIME: usize = 4096;
/// When it is looked once more: routes follow the address.
const SETTLED: Duration = Duration::from_secs(1);

/// `RTNLGRP_IPV4_IFADDR` (linux/rtnetlink.h) as the bit of a socket's address: addresses that come and go.
const ADDRESSES: u32 = 1 << (5 - 1);

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
    mut looks: Ticker,
    published: watch::Sender<Ipv4Addr>,
    stop: CancellationToken,
) {
    let towards = match address {
        HostAddress::Source { towards, .. } => towards,
        HostAddress::Fixed(_) => return stop.cancelled().await,
    };
    let mut again = None;
    let mut changes = listen()
        .inspect_err(
            |error| debug!(%error, "changes of addresses are not heard: looking now and then"),
        )
        .ok();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = looks.tick() => {}
            () = changed(&mut changes) => again = Some(Instant::now() + SETTLED),
            () = at(again) => again = None,
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

/// Hears when any address of this host comes or goes, which takes no privilege.
fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket
        .socket_mut()
        .bind(&netlink_sys::SocketAddr::new(0, ADDRESSES))?;
    Ok(socket)
}

/// Waits until an address may have changed, and a moment for what else changes along with it; for ever if that is not
/// heard. Cancel safe: what is lost is looked for all the same.
async fn changed(changes: &mut Option<TokioSocket>) {
    let Some(socket) = changes else {
        return std::future::pending().await;
    };
    let mut buffer = Vec::with_capacity(8 * 1024);
    let mut heard = socket.recv(&mut buffer).await;
    sleep(MOMENT).await;
    for _ in 0..AT_A_TIME {
        if heard
            .as_ref()
            .is_err_and(|error| error.raw_os_error() != Some(libc::ENOBUFS))
        {
            break;
        }
        buffer.clear();
        match timeout(Duration::ZERO, socket.recv(&mut buffer)).await {
            Ok(next) => heard = next,
            Err(_) => return,
        }
    }
    if let Err(error) = heard
        && error.raw_os_error() != Some(libc::ENOBUFS)
    {
        debug!(%error, "changes of addresses are not heard any more: looking now and then");
        *changes = None;
    }
}

/// Waits for a moment, if there is one to wait for.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
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
