//! Whether the kernel shows the rules that were written.
//!
//! Rules are not read for what they mean: formats change, and a rule can be said in many ways. The
//! kernel numbers each rule of a table as it is added, and never gives a number twice, so the
//! numbers tell whether they are the rules that were written; of sets the elements are counted.
//! And it numbers its state as a whole: while that number is the same, nothing else is read.
//!
//! linux/netfilter/nfnetlink.h and nf_tables.h; attributes as in linux/netlink.h.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, Socket, SocketAddr, TokioSocket,
    protocols::NETLINK_NETFILTER,
};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};
use tokio::{sync::Notify, task::JoinHandle};

use super::{TABLE, ruleset::SETS};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_GEN_ID: u16 = 1;
/// Multicast group of changes (`NFNLGRP_NFTABLES`).
const NFNLGRP_NFTABLES: u32 = 7;

const NFPROTO_INET: u8 = 1;
const NFPROTO_BRIDGE: u8 = 7;
const FAMILIES: [(&str, u8); 2] = [("inet", NFPROTO_INET), ("bridge", NFPROTO_BRIDGE)];

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// Set where the state changed while it was being read.
const NLM_F_DUMP_INTR: u16 = 0x10;
const HEADER_LEN: usize = 16;
/// `nlmsghdr` and `nfgenmsg`.
const BODY: usize = HEADER_LEN + 4;
/// The flags in an attribute's type (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// The kernel answers at once; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a reading is begun anew because the rules changed meanwhile.
const READINGS: usize = 8;

/// What tells rules that were written from any others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Number of the kernel's state, of all tables.
    generation: u32,
    tables: Tables,
}

/// The rules' numbers, and how many elements the sets have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tables {
    rules: Vec<(u8, u64)>,
    elements: BTreeMap<&'static str, usize>,
}

impl Fingerprint {
    /// Reads that of the tables as they are.
    pub(super) fn read(reader: &Reader) -> io::Result<Self> {
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

    /// Whether the kernel shows the same tables still.
    pub(super) fn holds(&mut self, reader: &Reader) -> io::Result<bool> {
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

/// Whether one of our tables has any rules.
///
/// # Errors
///
/// The kernel's answer; one without nf_tables has no tables.
pub(crate) fn tables_exist() -> io::Result<bool> {
    let reader = match Reader::open() {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(false),
        other => other?,
    };
    match reader.tables() {
        Ok(tables) => Ok(tables.is_none_or(|tables| !tables.rules.is_empty())),
        // Netfilter is there, nf_tables is not (nfnetlink_rcv_msg).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks the kernel for its rules.
#[derive(Debug)]
pub(super) struct Reader(Socket);

impl Reader {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
        setsockopt(&socket, ReceiveTimeout, &patience)?;
        Ok(Self(socket))
    }

    fn generation(&self) -> io::Result<u32> {
        let request = request(NFT_MSG_GETGEN, NLM_F_REQUEST, 0, &[]);
        let mut generation = None;
        self.ask(&request, |message| {
            let id = attribute(message.get(BODY..)?, NFTA_GEN_ID)?;
            generation = Some(u32::from_be_bytes(id.try_into().ok()?));
            Some(())
        })?;
        generation.ok_or_else(|| io::Error::other("the kernel tells no generation"))
    }

    /// `None` if the rules changed meanwhile.
    fn tables(&self) -> io::Result<Option<Tables>> {
        let mut tables = Tables::default();
        for (name, family) in FAMILIES {
            let table = [(NFTA_RULE_TABLE, TABLE)];
            let question = request(NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, family, &table);
            let rules = &mut tables.rules;
            let whole = self.ask(&question, |message| {
                let attributes = message.get(BODY..)?;
                // Kernels that do not know the filter tell the rules of all tables.
                if text(attribute(attributes, NFTA_RULE_TABLE)?) == TABLE.as_bytes() {
                    let handle = attribute(attributes, NFTA_RULE_HANDLE)?;
                    rules.push((family, u64::from_be_bytes(handle.try_into().ok()?)));
                }
                Some(())
            })?;
            if !whole {
                return Ok(None);
            }
            for set in SETS.iter().filter(|set| set.family == name) {
                match self.count(family, set.name) {
                    Ok(Some(count)) => tables.elements.insert(set.name, count),
                    Ok(None) => return Ok(None),
                    // Neither set nor table.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
                    Err(error) => return Err(error),
                };
            }
        }
        tables.rules.sort_unstable();
        Ok(Some(tables))
    }

    fn count(&self, family: u8, set: &str) -> io::Result<Option<usize>> {
        let names = [
            (NFTA_SET_ELEM_LIST_TABLE, TABLE),
            (NFTA_SET_ELEM_LIST_SET, set),
        ];
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let request = request(NFT_MSG_GETSETELEM, flags, family, &names);
        let mut count = 0;
        let whole = self.ask(&request, |message| {
            if u16_at(message, 4)? & 0xff == NFT_MSG_NEWSETELEM {
                let elements = attribute(message.get(BODY..)?, NFTA_SET_ELEM_LIST_ELEMENTS);
                count += elements.map_or(0, |elements| attributes(elements).count());
            }
            Some(())
        })?;
        Ok(whole.then_some(count))
    }

    /// Sends a request and reads its answers. Returns whether nothing changed meanwhile.
    fn ask(&self, request: &[u8], mut take: impl FnMut(&[u8]) -> Option<()>) -> io::Result<bool> {
        self.0.send(request, 0)?;
        let dump = u16_at(request, 6).is_some_and(|flags| flags & NLM_F_DUMP == NLM_F_DUMP);
        let mut whole = true;
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some((message, following)) = split(rest) {
                rest = following;
                whole &= u16_at(message, 6).is_none_or(|flags| flags & NLM_F_DUMP_INTR == 0);
                match u16_at(message, 4) {
                    Some(NLMSG_DONE) => return Ok(whole),
                    Some(NLMSG_ERROR) => {
                        let errno = message.get(HEADER_LEN..HEADER_LEN + 4);
                        let errno = errno.and_then(|it| it.try_into().ok());
                        return match errno.map_or(0, i32::from_ne_bytes) {
                            0 => Ok(whole),
                            errno => Err(io::Error::from_raw_os_error(-errno)),
                        };
                    }
                    _ => take(message).ok_or_else(|| {
                        io::Error::other("the kernel's answer cannot be understood")
                    })?,
                }
                if !dump {
                    return Ok(whole);
                }
            }
        }
    }
}

/// A request with text attributes. Its sequence number is that of the only one on the socket.
fn request(kind: u16, flags: u16, family: u8, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut body = vec![family, 0, 0, 0];
    for (name, value) in attributes {
        // Names are a few bytes.
        let length = (4 + value.len() + 1) as u16;
        body.extend(length.to_ne_bytes());
        body.extend(name.to_ne_bytes());
        body.extend(value.as_bytes());
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = Vec::with_capacity(HEADER_LEN + body.len());
    message.extend(((HEADER_LEN + body.len()) as u32).to_ne_bytes());
    message.extend((NFNL_SUBSYS_NFTABLES << 8 | kind).to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// The first message of a datagram, and what follows it.
fn split(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?) as usize;
    let message = datagram.get(..length).filter(|it| it.len() >= HEADER_LEN)?;
    let rest = datagram.get(length.next_multiple_of(4)..);
    Some((message, rest.unwrap_or_default()))
}

/// Each attribute's type and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(it, value)| (it == kind).then_some(value))
}

/// A text attribute without its final zero.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..offset + 2)?;
    field.try_into().ok().map(u16::from_ne_bytes)
}

/// Wakes whoever waits for `changed` whenever anybody changes the packet filter's rules. What
/// changed is not read from it, so a notification that is lost costs nothing.
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
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => {
                    tracing::warn!(%error, "changes of the packet filter are not heard any more: looking every few seconds");
                    return;
                }
            }
            changed.notify_one();
        }
    }))
}
