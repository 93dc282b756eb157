//! The messages of the kernel's packet filter that need no `nft`: what rules and elements there
//! are, and changes of elements.
//!
//! linux/netfilter/nfnetlink.h and nf_tables.h; attributes as in linux/netlink.h.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{TABLE, counters::Reading};
use crate::{
    desired::firewall::{ElementChange, Raw, SETS},
    netlink::{
        message::{
            HEADER_LEN, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST,
            attribute, attribute_of, attributes, kind, message, split, text, text_attribute,
        },
        reader::Reader,
    },
};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFT_MSG_GETOBJ: u16 = 19;
const NFT_OBJECT_COUNTER: u32 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_GEN_ID: u16 = 1;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
const NFTA_COUNTER_PACKETS: u16 = 2;

const NFPROTO_INET: u8 = 1;
const NFPROTO_BRIDGE: u8 = 7;
const FAMILIES: [(&str, u8); 2] = [("inet", NFPROTO_INET), ("bridge", NFPROTO_BRIDGE)];

/// `nlmsghdr` and `nfgenmsg`.
const BODY: usize = HEADER_LEN + 4;

/// Elements in one message: an attribute's length has 16 bits.
const ELEMENTS: usize = 1000;

/// The rules' numbers, and the elements of the sets: what the kernel compares, and what a map leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) rules: Vec<(u8, u64)>,
    pub(super) elements: BTreeMap<&'static str, BTreeSet<Vec<u8>>>,
}

/// Speaks with the kernel's packet filter, and with its connection tracking.
#[derive(Debug)]
pub(super) struct PacketFilter(Reader);

impl PacketFilter {
    pub(super) fn open() -> io::Result<Self> {
        Reader::of(NETLINK_NETFILTER).map(Self)
    }

    /// Sends a request and reads its answers. Returns whether nothing changed meanwhile.
    pub(super) fn ask(
        &self,
        request: &[u8],
        take: impl FnMut(&[u8]) -> Option<()>,
    ) -> io::Result<bool> {
        self.0.ask(request, take)
    }

    /// Number of the kernel's state, of all tables.
    pub(super) fn generation(&self) -> io::Result<u32> {
        let request = request(NFT_MSG_GETGEN, NLM_F_REQUEST, 0, &[]);
        let mut generation = None;
        self.ask(&request, |message| {
            let id = attribute(body(message)?, NFTA_GEN_ID)?;
            generation = Some(u32::from_be_bytes(id.try_into().ok()?));
            Some(())
        })?;
        generation.ok_or_else(|| io::Error::other("the kernel tells no generation"))
    }

    /// Our tables; `None` if they changed meanwhile.
    pub(super) fn tables(&self) -> io::Result<Option<Tables>> {
        let mut tables = Tables::default();
        for (name, family) in FAMILIES {
            let table = [(NFTA_RULE_TABLE, TABLE)];
            let question = request(NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, family, &table);
            let rules = &mut tables.rules;
            let whole = self.ask(&question, |message| {
                let attributes = body(message)?;
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
                match self.elements(family, set.name) {
                    Ok(Some(keys)) => tables.elements.insert(set.name, keys),
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

    /// Gives `take` the attributes of each rule of a family, in their order. Kernels that do not know the filter tell of all
    /// tables' rules. Returns whether nothing changed meanwhile.
    pub(super) fn rules(
        &self,
        family: &str,
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> io::Result<bool> {
        let number = FAMILIES.iter().find(|(name, _)| *name == family);
        let number = number.map_or(0, |(_, number)| *number);
        let table = [(NFTA_RULE_TABLE, TABLE)];
        let question = request(NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, number, &table);
        self.ask(&question, |message| take(body(message)?))
    }

    fn elements(&self, family: u8, set: &str) -> io::Result<Option<BTreeSet<Vec<u8>>>> {
        let names = [
            (NFTA_SET_ELEM_LIST_TABLE, TABLE),
            (NFTA_SET_ELEM_LIST_SET, set),
        ];
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let request = request(NFT_MSG_GETSETELEM, flags, family, &names);
        let mut keys = BTreeSet::new();
        let whole = self.ask(&request, |message| {
            if kind(message)? & 0xff != NFT_MSG_NEWSETELEM {
                return Some(());
            }
            let elements = attribute(body(message)?, NFTA_SET_ELEM_LIST_ELEMENTS);
            for (_, element) in attributes(elements.unwrap_or_default()) {
                let value = |name| attribute(attribute(element, name)?, NFTA_DATA_VALUE);
                let data = value(NFTA_SET_ELEM_DATA).unwrap_or_default();
                keys.insert([value(NFTA_SET_ELEM_KEY)?, data].concat());
            }
            Some(())
        })?;
        Ok(whole.then_some(keys))
    }

    /// The counters of our table, by name, in packets.
    pub(super) fn counters(&self) -> io::Result<Reading> {
        let mut attributes = text_attribute(NFTA_OBJ_TABLE, TABLE);
        let kind = NFT_OBJECT_COUNTER.to_be_bytes();
        attributes.extend(attribute_of(NFTA_OBJ_TYPE, &kind));
        let request = message(
            NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETOBJ,
            NLM_F_REQUEST | NLM_F_DUMP,
            &[NFPROTO_INET, 0, 0, 0],
            &attributes,
        );
        let mut counters = Reading::new();
        self.ask(&request, |message| {
            let attributes = body(message)?;
            if text(attribute(attributes, NFTA_OBJ_TABLE)?) == TABLE.as_bytes() {
                let name = text(attribute(attributes, NFTA_OBJ_NAME)?);
                let data = attribute(attributes, NFTA_OBJ_DATA)?;
                let packets = attribute(data, NFTA_COUNTER_PACKETS)?.try_into().ok()?;
                let name = String::from_utf8_lossy(name).into_owned();
                counters.insert(name, u64::from_be_bytes(packets));
            }
            Some(())
        })?;
        Ok(counters)
    }

    /// Adds and deletes elements, all or none.
    pub(super) fn change(&self, changes: &[ElementChange]) -> io::Result<()> {
        let mut batch = batch_mark(NFNL_MSG_BATCH_BEGIN);
        let mut acknowledged = 0;
        for change in changes {
            for elements in change.elements.chunks(ELEMENTS) {
                batch.extend(element_message(change, elements));
                acknowledged += 1;
            }
        }
        batch.extend(batch_mark(NFNL_MSG_BATCH_END));
        self.0.commit(&batch, acknowledged)
    }
}

/// Whether a datagram of notifications tells of a change of the table with that name, whatever changed in it. The
/// table's name is the first attribute of every message but the generation's (`NFTA_*_TABLE`).
pub(super) fn concerns(datagram: &[u8], table: &str) -> bool {
    let mut rest = datagram;
    while let Some((message, following)) = split(rest) {
        rest = following;
        let of_table =
            || Some(text(attribute(body(message)?, NFTA_RULE_TABLE)?) == table.as_bytes());
        let generation = kind(message).is_some_and(|kind| kind & 0xff == NFT_MSG_NEWGEN);
        if !generation && of_table().unwrap_or(true) {
            return true;
        }
    }
    false
}

/// A request with text attributes. Its sequence number is that of the only one on the socket.
fn request(kind: u16, flags: u16, family: u8, attributes: &[(u16, &str)]) -> Vec<u8> {
    let attributes: Vec<u8> = attributes
        .iter()
        .flat_map(|(name, value)| text_attribute(*name, value))
        .collect();
    message(
        NFNL_SUBSYS_NFTABLES << 8 | kind,
        flags,
        &[family, 0, 0, 0],
        &attributes,
    )
}

/// A request for everything of a kind, of all families.
pub(super) fn request_all(kind: u16) -> Vec<u8> {
    request(kind, NLM_F_REQUEST | NLM_F_DUMP, 0, &[])
}

/// The beginning or the end of a transaction.
fn batch_mark(kind: u16) -> Vec<u8> {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    message(kind, NLM_F_REQUEST, &[0, 0, high, low], &[])
}

fn element_message(change: &ElementChange, elements: &[Raw]) -> Vec<u8> {
    let part = |name, value: &[u8]| {
        let value = attribute_of(NFTA_DATA_VALUE, value);
        attribute_of(NLA_F_NESTED | name, &value)
    };
    let elements: Vec<u8> = elements
        .iter()
        .flat_map(|element| {
            let mut parts = part(NFTA_SET_ELEM_KEY, &element.key);
            // A map's element is deleted by its key, whatever it leads to.
            if change.add && !element.data.is_empty() {
                parts.extend(part(NFTA_SET_ELEM_DATA, &element.data));
            }
            attribute_of(NLA_F_NESTED | NFTA_LIST_ELEM, &parts)
        })
        .collect();
    let mut attributes = text_attribute(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    attributes.extend(text_attribute(NFTA_SET_ELEM_LIST_SET, change.set));
    attributes.extend(attribute_of(
        NLA_F_NESTED | NFTA_SET_ELEM_LIST_ELEMENTS,
        &elements,
    ));
    let (kind, flags) = match change.add {
        true => (NFT_MSG_NEWSETELEM, NLM_F_CREATE),
        false => (NFT_MSG_DELSETELEM, 0),
    };
    let family = FAMILIES.iter().find(|(name, _)| *name == change.family);
    message(
        NFNL_SUBSYS_NFTABLES << 8 | kind,
        NLM_F_REQUEST | NLM_F_ACK | flags,
        &[family.map_or(0, |(_, number)| *number), 0, 0, 0],
        &attributes,
    )
}

/// The attributes of a message.
pub(super) fn body(message: &[u8]) -> Option<&[u8]> {
    message.get(BODY..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notification(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        message(kind, 0, &[NFPROTO_INET, 0, 0, 0], attributes)
    }

    #[test]
    fn changes_of_others_tables_are_no_news_and_one_of_ours_among_them_is() {
        let generation = notification(NFT_MSG_NEWGEN, &attribute_of(NFTA_GEN_ID, &[0, 0, 0, 7]));
        let of = |table| notification(NFT_MSG_NEWSETELEM, &text_attribute(1, table));
        assert!(!concerns(&generation, TABLE));
        assert!(!concerns(&[of("nat"), of("filter")].concat(), TABLE));
        assert!(concerns(
            &[of("nat"), of(TABLE), generation].concat(),
            TABLE
        ));
        // One that says nothing may be about anything.
        assert!(concerns(&notification(NFT_MSG_NEWSETELEM, &[]), TABLE));
    }

    proptest! {
        #[test]
        fn no_notification_makes_the_reader_panic(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            concerns(&datagram, TABLE);
        }
    }
}
