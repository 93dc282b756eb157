//! The host address task: finds this node's address on the underlay, and notices when it changes.

use std::{fmt, io, net::Ipv4Addr, time::Duration};

use mesh_problems::catalog::agent::{
    CONNECTIONS_NOT_RENEWED, LOOPBACK_ADDRESS, NODE_ADDRESS_UNKNOWN,
};
use mesh_ticker::Ticker;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{control_plane::ControlPlane, problems::Problems, reasons::Reasons, retry};

mod interfaces;
mod look;

use look::{Found, Look, NotFound};

/// Longest time between two looks: routes change as well, and a notification may be lost. A look costs a few system
/// calls, and no packet unless the control plane's name has to be resolved.
pub(crate) const LONGEST_INTERVAL: Duration = Duration::from_secs(5);

/// What is waited for after an address has changed: a host may change thousands at once.
const MOMENT: Duration = Duration::from_millis(200);
/// Notifications that are taken together.
const AT_A_TIME: usize = 4096;
/// When it is looked once more: routes follow the address.
const SETTLED: Duration = Duration::from_secs(1);

/// `RTNLGRP_IPV4_IFADDR` (linux/rtnetlink.h) as the bit of a socket's address: addresses that come and go.
const ADDRESSES: u32 = 1 << (5 - 1);

/// Where the node's address comes from.
#[derive(Debug, Clone)]
pub enum HostAddress {
    /// The operator gave it.
    Fixed(Ipv4Addr),
    /// It is the source address towards the control plane, once there is one.
    Towards(
        /// Host and port of the control plane. With several replicas always the first, so
        /// that a node with two networks does not change its address with the replica.
        String,
    ),
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
            Self::Towards(name) => write!(f, "found out by the way to {name}"),
        }
    }
}

/// What made the task look.
#[derive(Debug)]
enum Woken {
    Stopped,
    /// It is time, because it was long ago or something may have settled since.
    Due,
    /// An address of this host came or went.
    AddressesChanged,
    /// The control plane could not be reached.
    Unreachable,
}

/// Publishes the address as soon as it is known and each time it changes, until `stop`. While it is not known, it is
/// looked for again and again, with one log line for each new reason.
pub async fn run(
    control_plane: ControlPlane,
    address: HostAddress,
    mut looks: Ticker,
    published: watch::Sender<Option<Ipv4Addr>>,
    problems: Problems,
    stop: CancellationToken,
) {
    let name = match address {
        HostAddress::Towards(name) => name,
        HostAddress::Fixed(address) => {
            comment_on(address, &problems);
            published.send_replace(Some(address));
            return stop.cancelled().await;
        }
    };
    let mut seen = Seen {
        control_plane: control_plane.clone(),
        published,
        last: None,
        missing: Reasons::default(),
        problems,
    };
    let mut look = Look::towards(name);
    let mut unreachable = control_plane.unreachable();
    let mut changes = listen()
        .inspect_err(
            |error| debug!(name: "changes-addresses-not-heard", %error, "changes of addresses are not heard: looking now and then"),
        )
        .ok();
    let mut pauses = backon::BackoffBuilder::build(retry::until_found());
    let mut again = Some(Instant::now());
    loop {
        let woken = tokio::select! {
            () = stop.cancelled() => Woken::Stopped,
            () = looks.tick() => Woken::Due,
            () = at(again) => Woken::Due,
            () = changed(&mut changes) => Woken::AddressesChanged,
            failed = unreachable.changed() => match failed {
                Ok(()) => Woken::Unreachable,
                Err(_) => Woken::Stopped,
            },
        };
        match woken {
            Woken::Stopped => return,
            Woken::Due => again = again.filter(|again| *again > Instant::now()),
            Woken::AddressesChanged => again = Some(Instant::now() + SETTLED),
            // Resolved with the next look: it may fail as often as it is tried.
            Woken::Unreachable => {
                look.doubt();
                continue;
            }
        }
        let before = *seen.published.borrow();
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = look.look(before) => result,
        };
        let renewed = seen.take(before, result);
        if renewed {
            look.doubt();
        }
        if seen.published.borrow().is_none() && again.is_none() {
            let pause = pauses.next().unwrap_or(retry::LONGEST_FIND_PAUSE);
            again = Some(Instant::now() + pause);
        }
    }
}

/// What was found so far, and who is told.
struct Seen {
    control_plane: ControlPlane,
    published: watch::Sender<Option<Ipv4Addr>>,
    last: Option<Found>,
    missing: Reasons<()>,
    problems: Problems,
}

impl Seen {
    /// Takes what a look found. Whether the connections to the control plane were made anew.
    fn take(&mut self, before: Option<Ipv4Addr>, result: Result<Found, NotFound>) -> bool {
        let found = match result {
            Ok(found) => found,
            // No route, no name: an address that cannot be found is not another address.
            Err(reason) if before.is_some() => {
                debug!(name: "cannot-look-up-node-address", %reason, "cannot look up this node's address");
                return false;
            }
            Err(reason) => {
                let reason = reason.to_string();
                if self.missing.note((), &reason) {
                    warn!(name: "waiting-node-address-found-out",
                        code = NODE_ADDRESS_UNKNOWN.code,
                        reason,
                        "waiting for this node's address, which is found out by the way to the control plane; \
                         --host-ip gives it"
                    );
                    self.problems.raise(&NODE_ADDRESS_UNKNOWN, reason);
                }
                return false;
            }
        };
        let moved = self.last.replace(found).is_some_and(|last| {
            (last.control_plane, last.is_here) != (found.control_plane, found.is_here)
        });
        let (control_plane, now) = (found.control_plane, found.address);
        match before {
            Some(before) if before != now => {
                info!(name: "node-address-changed", %before, %now, "this node's address changed")
            }
            Some(_) if moved => {
                info!(name: "control-plane-address-moved", %control_plane, is_here = found.is_here, "the control plane's address moved");
            }
            Some(_) => return false,
            None => {
                info!(name: "node-address-found", address = %now, %control_plane, "this node's address is found");
                self.problems.clear(&NODE_ADDRESS_UNKNOWN);
                comment_on(now, &self.problems);
                self.published.send_replace(Some(now));
                return false;
            }
        }
        // What is connected from an address, or to a host, that is gone only runs into deadlines.
        match self.control_plane.renew_connections() {
            Ok(()) => self.problems.clear(&CONNECTIONS_NOT_RENEWED),
            Err(error) => {
                error!(name: "cannot-make-new-connections-control",
                    code = CONNECTIONS_NOT_RENEWED.code, %error,
                    "cannot make new connections to the control plane; restart the agent"
                );
                let observed = error.to_string();
                self.problems.raise(&CONNECTIONS_NOT_RENEWED, observed);
            }
        }
        if before != Some(now) {
            comment_on(now, &self.problems);
            self.published.send_replace(Some(now));
        }
        true
    }
}

fn comment_on(address: Ipv4Addr, problems: &Problems) {
    if !address.is_loopback() {
        return problems.clear(&LOOPBACK_ADDRESS);
    }
    warn!(name: "other-hosts-cannot-reach-node",
        code = LOOPBACK_ADDRESS.code, host_address = %address,
        "other hosts cannot reach this node at a loopback address; give one with --host-ip"
    );
    problems.raise(&LOOPBACK_ADDRESS, address.to_string());
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
        debug!(name: "changes-addresses-not-heard-any", %error, "changes of addresses are not heard any more: looking now and then");
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
