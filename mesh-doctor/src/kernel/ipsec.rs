//! Policies by which the kernel transforms packets, or lets none through (IPsec, ip-xfrm(8)).

use std::{io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_xfrm::UserPolicyInfo;
use netlink_sys::protocols::NETLINK_XFRM;

use super::question::{Kernel, attribute, attributes, body, dump_message, u32_at};
use crate::judge::ipsec::{Direction, Policy};

/// linux/xfrm.h.
const XFRM_MSG_GETPOLICY: u16 = 21;
const XFRMA_TMPL: u16 = 5;
const XFRMA_MARK: u16 = 21;
const XFRMA_IF_ID: u16 = 31;
/// `struct xfrm_userpolicy_info`, with the padding behind it.
const INFO_LEN: usize = 168;

/// All policies for IPv4. Needs CAP_NET_ADMIN.
pub(crate) fn policies() -> io::Result<Vec<Policy>> {
    let mut kernel = match Kernel::of(NETLINK_XFRM) {
        // A kernel without IPsec has no policies.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    kernel.ask(dump_message(XFRM_MSG_GETPOLICY, &[]), |message| {
        found.extend(policy(body(message)));
    })?;
    Ok(found)
}

fn policy(bytes: &[u8]) -> Option<Policy> {
    let info = UserPolicyInfo::parse(bytes).ok()?;
    let selector = &info.selector;
    // One without a family is about all of them, and has no addresses.
    if ![0, libc::AF_INET as u16].contains(&selector.family) {
        return None;
    }
    let direction = match info.direction {
        0 => Direction::In,
        1 => Direction::Out,
        2 => Direction::Forward,
        // Of single sockets.
        _ => return None,
    };
    let net = |address: [u8; 16], length| {
        let [a, b, c, d, ..] = address;
        Ipv4Net::new(Ipv4Addr::new(a, b, c, d), length)
            .ok()
            .map(|it| it.trunc())
    };
    let rest = bytes.get(INFO_LEN..).unwrap_or_default();
    // `struct xfrm_mark`: value and mask.
    let mark = attribute(rest, XFRMA_MARK);
    let mark = mark.and_then(|it| Some((u32_at(it, 0)?, u32_at(it, 4)?)));
    let interface = attribute(rest, XFRMA_IF_ID).and_then(|it| u32_at(it, 0));
    Some(Policy {
        direction,
        source: net(selector.saddr.addr, selector.prefixlen_s)?,
        destination: net(selector.daddr.addr, selector.prefixlen_d)?,
        protocol: selector.proto,
        // The selector has them in network byte order, and so does the crate.
        port: selector.dport,
        port_mask: selector.dport_mask,
        priority: info.priority,
        blocks: info.action != 0,
        transforms: attributes(rest).any(|(kind, value)| kind == XFRMA_TMPL && !value.is_empty()),
        // A packet without a mark, and by no interface of IPsec's.
        of_all: mark.is_none_or(|(value, mask)| value & mask == 0)
            && interface.is_none_or(|id| id == 0)
            && selector.ifindex == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policies_of_a_namespace_can_be_read_by_root() {
        match policies() {
            // Whether there are any is the machine's business.
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
