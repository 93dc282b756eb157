//! Which addresses are this host's own, as the rules ask for it (`fib daddr type local`).
//!
//! linux/rtnetlink.h. Asked when it matters: addresses come and go, and a range may be routed to the host itself
//! that stands on no interface.

use std::{collections::BTreeMap, io, net::Ipv4Addr};

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{
    message::{HEADER_LEN, NLM_F_REQUEST, attribute_of, message},
    reader::Reader,
};

const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
const WHOLE_ADDRESS: u8 = 32;
/// `rtmsg` of a question for one address: family and length of the destination.
const QUESTION: [u8; 12] = [
    libc::AF_INET as u8,
    WHOLE_ADDRESS,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
];
/// Where a message has `rtm_type`.
const TYPE_AT: usize = HEADER_LEN + 7;

/// Asks the kernel, and remembers what it said.
pub(super) struct Local {
    reader: Reader,
    known: BTreeMap<Ipv4Addr, bool>,
}

impl Local {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            reader: Reader::of(NETLINK_ROUTE)?,
            known: BTreeMap::new(),
        })
    }

    /// Whether an address is this host's. One to which the kernel knows no way is not.
    pub(super) fn has(&mut self, address: Ipv4Addr) -> bool {
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        let is_local = self.ask(address).unwrap_or(false);
        self.known.insert(address, is_local);
        is_local
    }

    fn ask(&self, address: Ipv4Addr) -> io::Result<bool> {
        let destination = attribute_of(RTA_DST, &address.octets());
        let request = message(RTM_GETROUTE, NLM_F_REQUEST, &QUESTION, &destination);
        let mut is_local = false;
        self.reader.ask(&request, |message| {
            is_local = *message.get(TYPE_AT)? == RTN_LOCAL;
            Some(())
        })?;
        Ok(is_local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_hosts_and_an_address_for_documentation_is_not() {
        let mut local = Local::open().unwrap();
        for _ in 0..2 {
            assert!(local.has(Ipv4Addr::new(127, 0, 0, 53)));
            assert!(!local.has(Ipv4Addr::new(198, 51, 100, 7)));
        }
    }
}
