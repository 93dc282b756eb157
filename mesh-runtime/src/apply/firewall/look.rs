//! What the kernel has of tables, ours and others': for looking, beside whoever writes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use super::{
    TABLE,
    netlink::{PacketFilter, request_all},
};
use crate::netlink::message::{HEADER_LEN, attribute, text};

const NFT_MSG_GETCHAIN: u16 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;

/// `NF_DROP` and `NF_ACCEPT` (linux/netfilter.h).
pub(crate) const DROP: u32 = 0;
pub(crate) const ACCEPT: u32 = 1;

/// A chain of somebody else's that the kernel calls by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BaseChain {
    /// As nft writes it: `table ip filter, chain FORWARD`.
    pub(crate) name: String,
    pub(crate) family: Family,
    /// Number of the hook (`NF_INET_*`, `NF_BR_*`, `NF_NETDEV_*`).
    pub(crate) hook: u32,
    /// The interface, of a chain of one interface's.
    pub(crate) interface: String,
    /// Whether it lets everything through: it has no rules, and its policy is to accept.
    pub(crate) empty: bool,
    /// Lower ones are asked before higher ones.
    pub(crate) priority: i32,
    /// `NF_DROP` or `NF_ACCEPT`, if the kernel tells it.
    pub(crate) policy: Option<u32>,
    /// Whether it has any rules.
    pub(crate) has_rules: bool,
}

/// Which packets a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4, also along with IPv6.
    Ip,
    Bridge,
    Netdev,
    /// None of the mesh.
    Other,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Others' chains.
    pub(crate) chains: Vec<BaseChain>,
    /// The hooks that our own chains are at.
    pub(crate) own_hooks: BTreeSet<(Family, u32)>,
    /// Tables of the older iptables, which has nobody list its rules: `filter`, `nat` and so on.
    pub(crate) legacy: Vec<String>,
    /// How many rules our tables have.
    pub(crate) rules: usize,
    /// What our named sets hold, as the kernel compares it.
    pub(crate) elements: BTreeMap<&'static str, BTreeSet<Vec<u8>>>,
}

/// Looks, at the network namespace of the calling thread.
///
/// # Errors
///
/// A kernel that does not answer, or whose tables changed meanwhile, again and again.
pub(crate) fn look() -> io::Result<Looked> {
    const TRIES: usize = 5;
    let reader = match PacketFilter::open() {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            return Ok(Looked::default());
        }
        other => other?,
    };
    for _ in 0..TRIES {
        let (mut chains, mut own_hooks) = (Vec::new(), BTreeSet::new());
        let whole = reader.ask(&request_all(NFT_MSG_GETCHAIN), |message| {
            match chain(message)? {
                Some((true, own)) => drop(own_hooks.insert((own.family, own.hook))),
                Some((false, chain)) => chains.push(chain),
                None => {}
            }
            Some(())
        })?;
        if let (true, Some(tables)) = (whole, reader.tables()?) {
            chains.sort();
            return Ok(Looked {
                chains,
                own_hooks,
                legacy: legacy(),
                rules: tables.rules.len(),
                elements: tables.elements,
            });
        }
    }
    Err(io::Error::other("the packet filter's tables keep changing"))
}

/// A base chain, and whether it is of our tables; nothing of other chains.
fn chain(message: &[u8]) -> Option<Option<(bool, BaseChain)>> {
    let family = *message.get(HEADER_LEN)?;
    let attributes = message.get(HEADER_LEN + 4..)?;
    let word =
        |kind| Some(String::from_utf8_lossy(text(attribute(attributes, kind)?)).into_owned());
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    let (Some(table), Some(name)) = (word(NFTA_CHAIN_TABLE), word(NFTA_CHAIN_NAME)) else {
        return Some(None);
    };
    let Some(hook) = attribute(attributes, NFTA_CHAIN_HOOK) else {
        return Some(None);
    };
    let (family, family_name) = match family {
        1 => (Family::Ip, "inet"),
        2 => (Family::Ip, "ip"),
        5 => (Family::Netdev, "netdev"),
        7 => (Family::Bridge, "bridge"),
        _ => (Family::Other, "other"),
    };
    let interface = attribute(hook, NFTA_HOOK_DEV).map_or_else(String::new, |name| {
        String::from_utf8_lossy(text(name)).into_owned()
    });
    let policy = attribute(attributes, NFTA_CHAIN_POLICY).and_then(number);
    let rules = attribute(attributes, NFTA_CHAIN_USE).and_then(number);
    let chain = BaseChain {
        name: format!("table {family_name} {table}, chain {name}"),
        family,
        hook: number(attribute(hook, NFTA_HOOK_HOOKNUM)?)?,
        interface,
        empty: rules == Some(0) && policy.is_none_or(|policy| policy == ACCEPT),
        priority: attribute(hook, NFTA_HOOK_PRIORITY)
            .and_then(number)
            .map_or(0, u32::cast_signed),
        policy,
        has_rules: rules != Some(0),
    };
    Some(Some((table == TABLE, chain)))
}

fn legacy() -> Vec<String> {
    // Of the calling thread's network namespace. Without the module there is no file.
    let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names");
    names
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}
