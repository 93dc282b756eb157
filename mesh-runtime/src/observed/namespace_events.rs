//! What changes inside the containers of this host.
//!
//! A netlink socket that listens to all namespaces (`NETLINK_LISTEN_ALL_NSID`, Linux 4.2)
//! hears the notifications of every namespace that has an id in its own, and each comes with
//! that id. A port of the bridge whose other end is in a container gives the container's
//! namespace an id (`rtnl_fill_link_netnsid`), so nothing has to be entered to hear it.

use std::{
    collections::BTreeSet,
    io::{self, IoSliceMut},
    os::fd::AsRawFd as _,
};

use netlink_sys::{Socket, SocketAddr};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, NetlinkAddr, recvmsg},
};
use tokio::io::unix::AsyncFd;

use super::events::{RECEIVE_BUFFER, RTNLGRP_IPV4_IFADDR, RTNLGRP_LINK, group};

/// Id of a network namespace, as this process's namespace numbers it (`nsid`, ip-netns(8)).
pub(crate) type NamespaceId = i32;

/// The namespaces in which something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Perhaps every one.
    All,
    /// These.
    Only(BTreeSet<NamespaceId>),
}

impl Changed {
    /// Whether that namespace is among them.
    pub(crate) fn contains(&self, namespace: NamespaceId) -> bool {
        match self {
            Self::All => true,
            Self::Only(some) => some.contains(&namespace),
        }
    }
}

impl Default for Changed {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

/// Subscribes to the links and addresses of all namespaces that have an id here.
///
/// The kernel asks for `CAP_NET_BROADCAST`, which a process may lack that has all the rest:
/// the caller then has to look from time to time.
pub(super) fn listen() -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    socket.set_listen_all_namespaces(true)?;
    socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
    let groups = group(RTNLGRP_LINK) | group(RTNLGRP_IPV4_IFADDR);
    socket.bind(&SocketAddr::new(0, groups))?;
    // SAFETY: the descriptor is the socket's, which owns it and never exchanges it.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Takes one notification and says in which namespace it arose; `None` for our own.
pub(super) fn receive(socket: &Socket) -> io::Result<Option<NamespaceId>> {
    // Where it arose is all that matters: the rest of the datagram is cut off.
    let mut start = [0; 16];
    let mut control = cmsg_space!(NamespaceId);
    let mut parts = [IoSliceMut::new(&mut start)];
    let message = recvmsg::<NetlinkAddr>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let control = message
        .cmsgs()
        .map_err(|errno: Errno| io::Error::from(errno))?;
    for control in control {
        if let ControlMessageOwned::Unknown(control) = control
            && control.cmsg_header.cmsg_level == libc::SOL_NETLINK
            && control.cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID
        {
            return Ok(read_id(&control.data_bytes));
        }
    }
    Ok(None)
}

fn read_id(bytes: &[u8]) -> Option<NamespaceId> {
    let bytes = bytes.get(..size_of::<NamespaceId>())?;
    let id = NamespaceId::from_ne_bytes(bytes.try_into().ok()?);
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    (id >= 0).then_some(id)
}
