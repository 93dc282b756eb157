//! When the kernel of a host says that something has changed, to the microsecond.
//!
//! The time of a repair counts from the first notification after a fault was prepared: the
//! command that does the damage takes longer to start than the repair.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::Context as _;
use ipnet::Ipv4Net;
use mesh_testbed::Host;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike as _},
};

/// RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR and RTMGRP_IPV4_ROUTE (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40;
/// Room for the notifications of a flush while this thread waits for its turn.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Listens to one host's kernel until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    first: Option<Instant>,
    routes_removed: Vec<Ipv4Net>,
    overrun: bool,
}

impl Watch {
    /// Starts to listen. `cluster` tells which routes are those of the mesh.
    pub(crate) fn start(host: &Host, cluster: Ipv4Net) -> anyhow::Result<Self> {
        let socket = host
            .netns()
            .run(listen)?
            .with_context(|| format!("cannot listen to the kernel of {}", host.name()))?;
        let seen = Arc::<Mutex<Seen>>::default();
        let stop = Arc::<AtomicBool>::default();
        let thread = thread::Builder::new().name("netlink-watch".into()).spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || receive(&socket, cluster, &seen, &stop)
        })?;
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// Waits for the next first notification.
    pub(crate) fn arm(&self) {
        self.seen().first = None;
    }

    /// When the first notification after [`arm`](Self::arm) came.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.seen().first
    }

    /// The mesh's routes that were removed since the last call.
    pub(crate) fn take_routes_removed(&self) -> anyhow::Result<Vec<Ipv4Net>> {
        let mut seen = self.seen();
        if std::mem::take(&mut seen.overrun) {
            anyhow::bail!("the kernel dropped notifications: removed routes cannot be counted");
        }
        Ok(std::mem::take(&mut seen.routes_removed))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    // How soon the thread notices that it is to end.
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(100),
    )?;
    socket.bind(&SocketAddr::new(0, GROUPS))?;
    Ok(socket)
}

fn receive(socket: &Socket, cluster: Ipv4Net, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let mut buffer = Vec::with_capacity(1 << 16);
    while !stop.load(Ordering::Acquire) {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                lock(seen).overrun = true;
                continue;
            }
            Err(_) => continue,
        }
        let now = Instant::now();
        let removed = removed_routes(&buffer, cluster);
        let mut seen = lock(seen);
        seen.first.get_or_insert(now);
        seen.routes_removed.extend(removed);
    }
}

/// The destinations inside the cluster of a datagram's RTM_DELROUTE messages.
fn removed_routes(mut bytes: &[u8], cluster: Ipv4Net) -> Vec<Ipv4Net> {
    let mut removed = Vec::new();
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
        let length = usize::try_from(message.header.length).unwrap_or(0);
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) = &message.payload
        {
            removed.extend(destination(route).filter(|net| cluster.contains(net)));
        }
        // Messages are padded to 4 bytes (NLMSG_ALIGN); one without length would not end.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if length == 0 {
            break;
        }
    }
    removed
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    let length = route.header.destination_prefix_length;
    Ipv4Net::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), length).ok()
}
