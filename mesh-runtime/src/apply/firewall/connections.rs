//! The kernel's connection tracking, as far as published ports need it.
//!
//! linux/netfilter/nfnetlink_conntrack.h. Nothing here is needed for a packet to be safe: where it fails, a client
//! that never pauses stays astray, which is logged.

use std::{io, net::Ipv4Addr};

use super::{
    local::Local,
    netlink::{PacketFilter, body},
};
use crate::{
    desired::firewall::{ChangedPublications, Flow, Ruleset},
    netlink::message::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, attribute, attribute_of, message},
};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const FAMILY: u8 = libc::AF_INET as u8;

/// Has the kernel forget the flows of datagrams that `changed` leaves astray, so that their next datagram is
/// asked about anew. Returns how many there were.
pub(super) fn forget(
    reader: &PacketFilter,
    ruleset: &Ruleset,
    changed: &ChangedPublications,
) -> io::Result<usize> {
    let request = message(
        NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
        NLM_F_REQUEST | NLM_F_DUMP,
        &[FAMILY, 0, 0, 0],
        &[],
    );
    let mut local = Local::open()?;
    let mut astray = Vec::new();
    reader.ask(&request, |message| {
        let attributes = body(message)?;
        // Other protocols, and what has no ports, are none of ours.
        let flow = read(attributes)
            .filter(|flow| ruleset.leaves_astray(changed, flow, |address| local.has(address)));
        if flow.is_some() {
            let names = [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE];
            let named = names.into_iter().filter_map(|name| {
                let value = attribute(attributes, name)?;
                Some(attribute_of(name, value))
            });
            astray.push(named.collect::<Vec<_>>().concat());
        }
        Some(())
    })?;
    for flow in &astray {
        let delete = message(
            NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
            NLM_F_REQUEST | NLM_F_ACK,
            &[FAMILY, 0, 0, 0],
            flow,
        );
        match reader.ask(&delete, |_| Some(())) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(astray.len())
}

/// A flow of UDP.
fn read(attributes: &[u8]) -> Option<Flow> {
    let (client, asked) = tuple(attribute(attributes, CTA_TUPLE_ORIG)?)?;
    let (answers, answered) = tuple(attribute(attributes, CTA_TUPLE_REPLY)?)?;
    Some(Flow {
        client,
        asked,
        answers,
        answered,
    })
}

/// Source and destination of one direction.
fn tuple(attributes: &[u8]) -> Option<((Ipv4Addr, u16), (Ipv4Addr, u16))> {
    let ip = attribute(attributes, CTA_TUPLE_IP)?;
    let transport = attribute(attributes, CTA_TUPLE_PROTO)?;
    if attribute(transport, CTA_PROTO_NUM)? != [libc::IPPROTO_UDP as u8] {
        return None;
    }
    let end = |address, port| {
        let address: [u8; 4] = attribute(ip, address)?.try_into().ok()?;
        let port = attribute(transport, port)?.try_into().ok()?;
        Some((Ipv4Addr::from(address), u16::from_be_bytes(port)))
    };
    Some((
        end(CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?,
        end(CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?,
    ))
}
