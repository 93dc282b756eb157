//! What the kernel says has changed.
//!
//! The notifications are not used as data: each only says which part of the state to read
//! again. The kernel queues one before the call that caused it returns, so whoever takes what
//! is queued before reading has missed nothing. One that the kernel had to drop costs a full
//! reading and nothing else.

use std::{collections::BTreeSet, io, net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use super::{
    dirty::{Dirty, Parts},
    namespace_events::{self, NamespaceId},
    notification::{Interest, classify},
};

/// Bit of a multicast group (`RTNLGRP_*`, linux/rtnetlink.h) in a socket's address.
pub(super) const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

pub(super) const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_TC: u32 = 4;
pub(super) const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
/// Policy rules, which say by which table a peer is reached.
const RTNLGRP_IPV4_RULE: u32 = 8;
/// Settings under `net.ipv4.conf`, such as forwarding.
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const XFRMNLGRP_POLICY: u32 = 4;
const GROUPS: u32 = group(RTNLGRP_LINK)
    | group(RTNLGRP_NEIGH)
    | group(RTNLGRP_TC)
    | group(RTNLGRP_IPV4_IFADDR)
    | group(RTNLGRP_IPV4_ROUTE)
    | group(RTNLGRP_IPV4_RULE)
    | group(RTNLGRP_IPV4_NETCONF);

/// Room for the notifications of a burst, such as a container's whole set-up, while this
/// process waits for its turn.
pub(super) const RECEIVE_BUFFER: usize = 1 << 20;

/// Room for a notification. The kernel makes them small, and of one that is longer all the same everything is read again.
const LONGEST_NOTIFICATION: usize = 48 << 10;

/// Datagrams that are taken at a time: whoever keeps changing things does not keep others waiting.
const AT_A_TIME: usize = 4096;

/// Listens to the kernel's notifications.
#[derive(Debug)]
pub(crate) struct Events {
    socket: AsyncFd<Socket>,
    /// `None` where this process may not hear them.
    containers: Option<AsyncFd<Socket>>,
    /// Tells of policies of IPsec; `None` where the kernel has none.
    policies: Option<AsyncFd<Socket>>,
    interest: Interest,
    heard: Dirty,
    /// Where something has changed inside a container.
    namespaces: BTreeSet<NamespaceId>,
    /// Whether the socket has failed, after which nothing would be noticed.
    closed: bool,
    /// What is received into: as large as a notification may be, so not made anew for each.
    buffer: Vec<u8>,
}

impl Events {
    /// Subscribes, so that from now on nothing goes unnoticed. What `own_port` asks of the kernel to do to
    /// routes and neighbours is not worth a look.
    pub(crate) fn listen(own_port: u32, cluster: Ipv4Net) -> io::Result<Self> {
        let mut socket = Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        let containers = match namespace_events::listen() {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::info!(name: "cannot-listen-containers-interfaces",
                    %error,
                    "cannot listen to containers' interfaces (CAP_NET_BROADCAST): looking at new \
                     ones until they have an address, and at all every few seconds"
                );
                None
            }
        };
        Ok(Self {
            // SAFETY: the descriptor is the socket's, which owns it and never exchanges it.
            socket: unsafe { AsyncFd::register(socket) }?,
            containers,
            policies: listen_to_policies().ok(),
            interest: Interest {
                own_port,
                cluster,
                bridge: 0,
                overlay: 0,
                peers: Arc::default(),
            },
            heard: Dirty::default(),
            namespaces: BTreeSet::new(),
            closed: false,
            buffer: Vec::with_capacity(LONGEST_NOTIFICATION),
        })
    }

    /// Whether changes inside containers are heard.
    pub(crate) fn hears_containers(&self) -> bool {
        self.containers.is_some()
    }

    /// Where something has changed inside containers since the last call.
    pub(crate) fn take_namespaces(&mut self) -> BTreeSet<NamespaceId> {
        self.drain();
        std::mem::take(&mut self.namespaces)
    }

    /// Waits until something may have changed. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        while self.heard.is_clean() && self.namespaces.is_empty() {
            if self.closed {
                return std::future::pending().await;
            }
            let of_containers = async {
                match &self.containers {
                    Some(socket) => socket.readable().await,
                    None => std::future::pending().await,
                }
            };
            let of_policies = async {
                match &self.policies {
                    Some(socket) => socket.readable().await,
                    None => std::future::pending().await,
                }
            };
            // A socket that is not registered any more is found to be closed below.
            let ready = tokio::select! {
                ready = self.socket.readable() => ready,
                ready = of_containers => ready,
                ready = of_policies => ready,
            };
            if let Ok(mut ready) = ready {
                // What is not there any more was taken by `drain`.
                let _ = ready.try_io(|socket| is_readable(socket.get_ref()));
            }
            self.drain();
        }
    }

    /// What may have changed since the last call.
    pub(crate) fn take(&mut self) -> Dirty {
        self.drain();
        std::mem::take(&mut self.heard)
    }

    /// Names the interfaces whose neighbours matter; 0 for one that does not exist.
    pub(crate) fn watch_neighbours(&mut self, bridge: u32, overlay: u32) {
        self.interest.bridge = bridge;
        self.interest.overlay = overlay;
    }

    /// Names the peers' hosts, to which routes matter.
    pub(crate) fn watch_routes_to(&mut self, peers: &Arc<BTreeSet<Ipv4Addr>>) {
        self.interest.peers = Arc::clone(peers);
    }

    /// Whether nothing would be noticed any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes what the kernel has queued.
    fn drain(&mut self) {
        let buffer = &mut self.buffer;
        for _ in 0..AT_A_TIME {
            buffer.clear();
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            match self.socket.get_ref().recv(buffer, flags) {
                Ok(length) if length > buffer.len() => self.heard = Dirty::all(),
                Ok(_) => classify(buffer, &self.interest, &mut self.heard),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tracing::debug!(name: "netlink-notifications-lost", "netlink notifications were lost: reading everything again");
                    self.heard = Dirty::all();
                }
                Err(error) => {
                    if !self.closed {
                        tracing::warn!(name: "netlink-notifications-ended", %error, "netlink notifications ended");
                    }
                    self.closed = true;
                    self.heard = Dirty::all();
                    break;
                }
            }
        }
        for _ in 0..AT_A_TIME {
            let Some(socket) = &self.policies else {
                break;
            };
            buffer.clear();
            match socket.get_ref().recv(buffer, libc::MSG_DONTWAIT) {
                Ok(_) => self.heard.parts |= Parts::POLICIES,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Lost or closed: each comparison reads them all the same.
                Err(error) => {
                    self.heard.parts |= Parts::POLICIES;
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        self.policies = None;
                    }
                }
            }
        }
        for _ in 0..AT_A_TIME {
            let Some(socket) = &self.containers else {
                break;
            };
            match namespace_events::receive(socket.get_ref()) {
                Ok(Some(namespace)) => {
                    self.namespaces.insert(namespace);
                }
                // The namespace's own notifications, which have a socket of their own.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tracing::debug!(name: "notifications-containers-lost",
                        "notifications of containers were lost: looking at all of them"
                    );
                    self.heard.parts |= Parts::CONTAINERS;
                }
                Err(error) => {
                    tracing::warn!(name: "notifications-containers-ended", %error, "notifications of containers ended: looking now and then");
                    self.heard.parts |= Parts::CONTAINERS;
                    self.containers = None;
                }
            }
        }
    }
}

/// Subscribes to changes of policies (`XFRMNLGRP_POLICY`, linux/xfrm.h).
fn listen_to_policies() -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(netlink_sys::protocols::NETLINK_XFRM)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, group(XFRMNLGRP_POLICY)))?;
    // SAFETY: the descriptor is the socket's, which owns it and never exchanges it.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Whether a datagram is there, which stays where it is; an error of the kind `WouldBlock` if not.
fn is_readable(socket: &Socket) -> io::Result<()> {
    let mut start = Vec::with_capacity(1);
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    socket.recv(&mut start, flags).map(drop)
}
