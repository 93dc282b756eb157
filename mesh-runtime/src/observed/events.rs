//! What the kernel says has changed.
//!
//! The notifications are not used as data: each only says which part of the state to read
//! again. So nothing queues up in this process, and one that the kernel had to drop costs
//! a full reading and nothing else.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use tokio::{sync::Notify, task::JoinHandle};

use super::namespace_events::{self, NamespaceId};

/// Which parts of the observed state may be out of date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirty {
    /// Interfaces and addresses, and with them everything that leans on them: the kernel
    /// drops the routes of a device that goes down without a word.
    pub(crate) devices: bool,
    /// Routes.
    pub(crate) routes: bool,
    /// Neighbours and forwarding databases.
    pub(crate) neighbours: bool,
    /// The ways to the peers' hosts.
    pub(crate) ways: bool,
    /// The inside of every container. Of new ones nothing is known anyway, and the kernel
    /// tells where something has changed.
    pub(crate) containers: bool,
    /// Whether our programs are attached still.
    pub(crate) programs: bool,
}

impl Dirty {
    /// Everything.
    pub(crate) const ALL: Self = Self {
        devices: true,
        routes: true,
        neighbours: true,
        ways: true,
        containers: true,
        programs: true,
    };

    /// The inside of every container alone.
    pub(crate) const CONTAINERS: Self = Self {
        devices: false,
        routes: false,
        neighbours: false,
        ways: false,
        containers: true,
        programs: false,
    };

    /// What a change of a device may have changed.
    const DEVICES: Self = Self {
        containers: false,
        programs: false,
        ..Self::ALL
    };

    /// What shows whether the wanted state is in place. The ways to the peers' hosts are not
    /// of it: the kernel tells when a route or a device changes, and to ask for hundreds of
    /// them takes longer than all the rest.
    pub(crate) const STATE: Self = Self {
        ways: false,
        ..Self::DEVICES
    };

    /// Whether nothing is out of date.
    pub(crate) fn is_clean(self) -> bool {
        self == Self::default()
    }

    /// What either says.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            devices: self.devices || other.devices,
            routes: self.routes || other.routes,
            neighbours: self.neighbours || other.neighbours,
            ways: self.ways || other.ways,
            containers: self.containers || other.containers,
            programs: self.programs || other.programs,
        }
    }

    fn to_bits(self) -> u8 {
        u8::from(self.devices)
            | u8::from(self.routes) << 1
            | u8::from(self.neighbours) << 2
            | u8::from(self.ways) << 3
            | u8::from(self.containers) << 4
            | u8::from(self.programs) << 5
    }

    fn from_bits(bits: u8) -> Self {
        Self {
            devices: bits & 1 != 0,
            routes: bits & 2 != 0,
            neighbours: bits & 4 != 0,
            ways: bits & 8 != 0,
            containers: bits & 16 != 0,
            programs: bits & 32 != 0,
        }
    }
}

/// Listens to the kernel's notifications.
#[derive(Debug)]
pub(crate) struct Events {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// `None` where this process may not hear them.
    containers: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    dirty: AtomicU8,
    /// Where something has changed inside a container.
    namespaces: Mutex<BTreeSet<NamespaceId>>,
    wake: Notify,
    /// Port of the netlink socket whose requests cause notifications not worth a look.
    own_port: AtomicU32,
    /// Interfaces whose neighbours matter.
    bridge: AtomicU32,
    overlay: AtomicU32,
}

impl Shared {
    /// Something has changed in that namespace.
    pub(super) fn note_namespace(&self, namespace: NamespaceId) {
        self.namespaces().insert(namespace);
        self.wake.notify_one();
    }

    /// Something may have changed in any namespace.
    pub(super) fn note_all_namespaces(&self) {
        self.note(Dirty::CONTAINERS);
    }

    fn note(&self, dirty: Dirty) {
        self.dirty.fetch_or(dirty.to_bits(), Ordering::AcqRel);
        self.wake.notify_one();
    }

    fn namespaces(&self) -> MutexGuard<'_, BTreeSet<NamespaceId>> {
        // A set of numbers is whole whoever panicked while holding it.
        self.namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bit of a multicast group (`RTNLGRP_*`, linux/rtnetlink.h) in a socket's address.
pub(super) const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

pub(super) const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_TC: u32 = 4;
pub(super) const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
/// Settings under `net.ipv4.conf`, such as forwarding.
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const GROUPS: u32 = group(RTNLGRP_LINK)
    | group(RTNLGRP_NEIGH)
    | group(RTNLGRP_TC)
    | group(RTNLGRP_IPV4_IFADDR)
    | group(RTNLGRP_IPV4_ROUTE)
    | group(RTNLGRP_IPV4_NETCONF);

/// Room for the notifications of a burst, such as a container's whole set-up, while this
/// process waits for its turn.
pub(super) const RECEIVE_BUFFER: usize = 1 << 20;

impl Events {
    /// Subscribes, so that from now on nothing goes unnoticed.
    pub(crate) fn listen(own_port: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        socket.socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
        let shared = Arc::new(Shared::default());
        shared.own_port.store(own_port, Ordering::Relaxed);
        let task = tokio::spawn(receive(socket, Arc::clone(&shared)));
        let containers = match namespace_events::listen(Arc::clone(&shared)) {
            Ok(task) => Some(task),
            Err(error) => {
                tracing::info!(
                    %error,
                    "cannot listen to containers' interfaces (CAP_NET_BROADCAST): looking at new \
                     ones until they have an address, and at all every few seconds"
                );
                None
            }
        };
        Ok(Self {
            shared,
            task,
            containers,
        })
    }

    /// Whether changes inside containers are heard.
    pub(crate) fn hears_containers(&self) -> bool {
        self.containers
            .as_ref()
            .is_some_and(|task| !task.is_finished())
    }

    /// Where something has changed inside containers since the last call.
    pub(crate) fn take_namespaces(&self) -> BTreeSet<NamespaceId> {
        std::mem::take(&mut *self.shared.namespaces())
    }

    /// Waits until something may have changed. Cancel safe.
    pub(crate) async fn changed(&self) {
        loop {
            if !self.pending().is_clean() || !self.shared.namespaces().is_empty() {
                return;
            }
            self.shared.wake.notified().await;
        }
    }

    /// What may have changed since the last call.
    pub(crate) fn take(&self) -> Dirty {
        Dirty::from_bits(self.shared.dirty.swap(0, Ordering::AcqRel))
    }

    /// What [`take`](Self::take) would return, left for it.
    pub(crate) fn pending(&self) -> Dirty {
        Dirty::from_bits(self.shared.dirty.load(Ordering::Acquire))
    }

    /// Names the interfaces whose neighbours matter; 0 for one that does not exist.
    pub(crate) fn watch_neighbours(&self, bridge: u32, overlay: u32) {
        self.shared.bridge.store(bridge, Ordering::Relaxed);
        self.shared.overlay.store(overlay, Ordering::Relaxed);
    }

    /// Whether the listener has ended, after which nothing would be noticed.
    pub(crate) fn is_closed(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(task) = &self.containers {
            task.abort();
        }
    }
}

async fn receive(socket: TokioSocket, shared: Arc<Shared>) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        let dirty = match socket.recv(&mut buffer).await {
            Ok(()) => {
                let interest = Interest {
                    own_port: shared.own_port.load(Ordering::Relaxed),
                    links: [
                        shared.bridge.load(Ordering::Relaxed),
                        shared.overlay.load(Ordering::Relaxed),
                    ],
                };
                classify(&buffer, &interest)
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                tracing::debug!("netlink notifications were lost: reading everything again");
                Dirty::ALL
            }
            Err(error) => {
                tracing::warn!(%error, "netlink notifications ended");
                shared.dirty.store(Dirty::ALL.to_bits(), Ordering::Release);
                shared.wake.notify_one();
                return;
            }
        };
        if !dirty.is_clean() {
            shared.note(dirty);
        }
    }
}

/// What makes a notification worth a look.
struct Interest {
    own_port: u32,
    links: [u32; 2],
}

const HEADER_LEN: usize = 16;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNETCONF: u16 = 80;
const RTM_DELQDISC: u16 = 37;
const RTM_DELTFILTER: u16 = 45;

/// Reads what a datagram of notifications says has changed.
///
/// Only message headers are looked at (`nlmsghdr`, `rtmsg`, `ndmsg`; linux/netlink.h,
/// linux/rtnetlink.h, linux/neighbour.h), in the byte order of the host.
fn classify(mut datagram: &[u8], interest: &Interest) -> Dirty {
    let mut dirty = Dirty::default();
    while let Some((message, rest)) = split_message(datagram) {
        dirty = dirty.and(classify_message(message, interest));
        datagram = rest;
    }
    dirty
}

fn classify_message(message: &[u8], interest: &Interest) -> Dirty {
    let body = &message[HEADER_LEN..];
    let caused_here = u32_at(message, 12).is_some_and(|port| port == interest.own_port);
    match u16_at(message, 4) {
        Some(RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR | RTM_NEWNETCONF) => {
            Dirty::DEVICES
        }
        // A filter of ours may be among them.
        Some(RTM_DELQDISC | RTM_DELTFILTER) => Dirty {
            programs: true,
            ..Dirty::default()
        },
        Some(RTM_NEWROUTE | RTM_DELROUTE) if !caused_here => Dirty {
            routes: true,
            ways: true,
            ..Dirty::default()
        },
        Some(RTM_NEWNEIGH | RTM_DELNEIGH) if !caused_here => {
            let bridge_entry = body.first() == Some(&(libc::AF_BRIDGE as u8));
            let watched = u32_at(body, 4).is_some_and(|link| interest.links.contains(&link));
            Dirty {
                neighbours: bridge_entry || watched,
                ..Dirty::default()
            }
        }
        _ => Dirty::default(),
    }
}

/// Splits off the first message, whole with its header.
fn split_message(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    if length < HEADER_LEN || length > datagram.len() {
        return None;
    }
    let next = length.next_multiple_of(4).min(datagram.len());
    Some((&datagram[..length], &datagram[next..]))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTEREST: Interest = Interest {
        own_port: 77,
        links: [5, 6],
    };

    fn message(kind: u16, port: u32, family: i32, link: u32) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend(28_u32.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(0_u16.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(port.to_ne_bytes());
        message.extend([family as u8, 0, 0, 0]);
        message.extend(link.to_ne_bytes());
        message.extend([0; 4]);
        message
    }

    #[test]
    fn a_change_of_a_device_or_its_settings_makes_everything_worth_reading() {
        for kind in [
            RTM_NEWLINK,
            RTM_DELLINK,
            RTM_NEWADDR,
            RTM_DELADDR,
            RTM_NEWNETCONF,
        ] {
            let dirty = classify(&message(kind, 77, 0, 9), &INTEREST);
            assert_eq!(dirty, Dirty::DEVICES);
        }
    }

    #[test]
    fn routes_and_neighbours_that_this_process_changed_are_no_news() {
        for kind in [RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEIGH, RTM_DELNEIGH] {
            let own = message(kind, 77, libc::AF_INET, 5);
            assert!(classify(&own, &INTEREST).is_clean());
            let foreign = message(kind, 0, libc::AF_INET, 5);
            assert!(!classify(&foreign, &INTEREST).is_clean());
        }
    }

    #[test]
    fn neighbours_of_other_interfaces_are_no_news_but_all_forwarding_entries_are() {
        let elsewhere = message(RTM_NEWNEIGH, 0, libc::AF_INET, 4);
        assert!(classify(&elsewhere, &INTEREST).is_clean());
        let entry = message(RTM_NEWNEIGH, 0, libc::AF_BRIDGE, 4);
        assert!(classify(&entry, &INTEREST).neighbours);
    }

    #[test]
    fn a_filter_or_qdisc_that_goes_makes_our_programs_worth_a_look() {
        for kind in [RTM_DELQDISC, RTM_DELTFILTER] {
            let dirty = classify(&message(kind, 0, 0, 9), &INTEREST);
            assert!(dirty.programs && !dirty.devices, "{dirty:?}");
        }
    }

    #[test]
    fn every_message_of_a_datagram_counts() {
        let mut datagram = message(RTM_NEWNEIGH, 0, libc::AF_INET, 4);
        datagram.extend(message(RTM_DELROUTE, 0, libc::AF_INET, 0));
        let dirty = classify(&datagram, &INTEREST);
        assert!(dirty.routes && dirty.ways && !dirty.devices);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_reader_panic(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            classify(&datagram, &INTEREST);
        }

        #[test]
        fn marks_survive_being_bits(bits in 0_u8..64) {
            prop_assert_eq!(Dirty::from_bits(bits).to_bits(), bits);
        }
    }
}
