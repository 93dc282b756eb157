//! Whether the kernel shows the rules that were written.
//!
//! Rules are not read for what they mean: formats change, and a rule can be said in many ways. The
//! kernel numbers each rule of a table as it is added, and never gives a number twice, so the
//! numbers tell whether they are the rules that were written; of sets the elements are read.
//! And it numbers its state as a whole: while that number is the same, nothing else is read.

use std::{io, sync::Arc};

use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER,
};
use tokio::{sync::Notify, task::JoinHandle};

use super::{
    TABLE,
    netlink::{PacketFilter, Tables, concerns},
};
use crate::desired::firewall::{Content, ElementChange};

/// Multicast group of changes (`NFNLGRP_NFTABLES`).
const NFNLGRP_NFTABLES: u32 = 7;

/// How often a reading is begun anew because the rules changed meanwhile.
const READINGS: usize = 8;

/// What tells rules that were written from any others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Number of the kernel's state, of all tables.
    generation: u32,
    tables: Tables,
}

impl Fingerprint {
    /// Reads that of the tables as they are.
    pub(super) fn read(reader: &PacketFilter) -> io::Result<Self> {
        for _ in 0..READINGS {
            let generation = reader.generation()?;
            let tables = reader.tables()?;
            if reader.generation()? == generation
                && let Some(tables) = tables
            {
                return Ok(Self { generation, tables });
            }
        }
        Err(io::Error::other(
            "they changed at every attempt to read them",
        ))
    }

    /// What it is after changes of elements that were made as one. Of a transaction that was the only one since,
    /// nothing needs to be read: the kernel numbers them one after the other, and takes all of one or nothing.
    pub(super) fn after(
        &self,
        reader: &PacketFilter,
        changes: &[ElementChange],
    ) -> io::Result<Option<Self>> {
        let generation = reader.generation()?;
        if generation != self.generation.wrapping_add(1) {
            return Ok(None);
        }
        let mut tables = self.tables.clone();
        for change in changes {
            let elements = tables.elements.entry(change.set).or_default();
            for element in &change.elements {
                match change.add {
                    true => elements.insert(element.whole()),
                    false => elements.remove(&element.whole()),
                };
            }
        }
        Ok(Some(Self { generation, tables }))
    }

    /// Whether it is what was written: somebody may have been at it before it was read.
    pub(super) fn is_of(&self, content: &Content) -> bool {
        self.tables.rules.len() == content.rules && self.tables.elements == content.elements
    }

    /// Whether no tables at all have changed since.
    pub(super) fn is_newest(&self, reader: &PacketFilter) -> bool {
        let generation = reader.generation();
        generation.is_ok_and(|generation| generation == self.generation)
    }

    /// Whether the kernel shows the same tables still.
    pub(super) fn holds(&mut self, reader: &PacketFilter) -> io::Result<bool> {
        if reader.generation()? == self.generation {
            return Ok(true);
        }
        let now = Self::read(reader)?;
        let same = now.tables == self.tables;
        if same {
            // Somebody else's tables were changed.
            self.generation = now.generation;
        }
        Ok(same)
    }
}

/// Whether there is one of our tables.
///
/// # Errors
///
/// The kernel's answer; one without nf_tables has no tables.
pub(crate) fn tables_exist() -> io::Result<bool> {
    let reader = match PacketFilter::open() {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(false),
        other => other?,
    };
    match reader.tables() {
        Ok(tables) => Ok(tables.is_none_or(|tables| tables != Tables::default())),
        // Netfilter is there, nf_tables is not (nfnetlink_rcv_msg).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Wakes whoever waits for `changed` whenever anybody changes our tables. What has changed is not read from it,
/// and all is looked at every few seconds, so that a notification that is lost costs nothing.
///
/// # Errors
///
/// A kernel without netfilter, which has no rules either.
pub(crate) fn listen(changed: Arc<Notify>) -> io::Result<JoinHandle<()>> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    let groups = 1 << (NFNLGRP_NFTABLES - 1);
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(tokio::spawn(async move {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            match socket.recv(&mut buffer).await {
                Ok(()) if concerns(&buffer, TABLE) => {}
                Ok(()) => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => {
                    tracing::warn!(name: "packet-filter-unheard-any-more", %error, "changes of the packet filter are not heard any more: looking every few seconds");
                    return;
                }
            }
            changed.notify_one();
        }
    }))
}
