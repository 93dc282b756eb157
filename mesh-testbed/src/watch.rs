//! When the kernel of a host says that something has changed, to the microsecond, and what became of its routes.
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

use ipnet::Ipv4Net;
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

use crate::{
    error::{Error, Result},
    host::Host,
};

/// RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR and RTMGRP_IPV4_ROUTE (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40;
/// Room for the notifications of a flush while this thread waits for its turn.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Listens to one host's kernel until it is dropped.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    first: Option<Instant>,
    routes_removed: Vec<Ipv4Net>,
    routes_set: Vec<Ipv4Net>,
    overrun: bool,
}

impl Watch {
    /// Starts to listen. `cluster` tells which routes are those of the mesh.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn start(host: &Host, cluster: Ipv4Net) -> Result<Self> {
        let failed = |error| Error::system("listen to the kernel of", host.name(), error);
        let socket = host.netns().run(listen)?.map_err(failed)?;
        let seen = Arc::<Mutex<Seen>>::default();
        let stop = Arc::<AtomicBool>::default();
        let thread = thread::Builder::new().name("netlink-watch".into()).spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || receive(&socket, cluster, &seen, &stop)
        });
        let thread = thread.map_err(failed)?;
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// Waits for the next first notification.
    pub fn arm(&self) {
        self.seen().first = None;
    }

    /// When the first notification after [`arm`](Self::arm) came.
    pub fn first(&self) -> Option<Instant> {
        self.seen().first
    }

    /// The mesh's routes that were removed since the last call.
    ///
    /// # Errors
    ///
    /// Some may be missing: the kernel says so.
    pub fn take_routes_removed(&self) -> Result<Vec<Ipv4Net>> {
        self.take(|seen| &mut seen.routes_removed)
    }

    /// The mesh's routes that were added or replaced since the last call.
    ///
    /// # Errors
    ///
    /// Some may be missing: the kernel says so.
    pub fn take_routes_set(&self) -> Result<Vec<Ipv4Net>> {
        self.take(|seen| &mut seen.routes_set)
    }

    fn take(&self, which: fn(&mut Seen) -> &mut Vec<Ipv4Net>) -> Result<Vec<Ipv4Net>> {
        let mut seen = self.seen();
        match std::mem::take(&mut seen.overrun) {
            false => Ok(std::mem::take(which(&mut seen))),
            true => Err(Error::system(
                "count",
                "changes of routes",
                io::Error::from_raw_os_error(libc::ENOBUFS),
            )),
        }
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
        let mut seen = lock(seen);
        seen.first.get_or_insert(now);
        seen.take_in(&buffer, cluster);
    }
}

impl Seen {
    /// Takes the routes inside the cluster from a datagram.
    fn take_in(&mut self, mut bytes: &[u8], cluster: Ipv4Net) {
        while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
            let length = usize::try_from(message.header.length).unwrap_or(0);
            let (route, routes) = match &message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => {
                    (Some(route), &mut self.routes_removed)
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    (Some(route), &mut self.routes_set)
                }
                _ => (None, &mut self.routes_set),
            };
            let net = route.and_then(destination);
            routes.extend(net.filter(|net| cluster.contains(net)));
            // Messages are padded to 4 bytes (NLMSG_ALIGN); one without length would not end.
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            if length == 0 {
                break;
            }
        }
    }
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    let length = route.header.destination_prefix_length;
    Ipv4Net::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), length).ok()
}
