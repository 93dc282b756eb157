//! Policies by which the kernel transforms packets, or lets none through (IPsec, ip-xfrm(8)).

use std::{io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_layout::PROTOCOL_UDP;
use netlink_packet_xfrm::UserPolicyInfo;
use netlink_sys::protocols::NETLINK_XFRM;

use crate::netlink::{
    message::{HEADER_LEN, NLM_F_DUMP, NLM_F_REQUEST, message},
    reader::Reader,
};

/// linux/xfrm.h.
const XFRM_MSG_GETPOLICY: u16 = 21;
const XFRM_POLICY_IN: u8 = 0;
const XFRM_POLICY_OUT: u8 = 1;

/// Which packets a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Those that this host sends.
    Out,
    /// Those that it receives.
    In,
}

/// A policy for IPv4, as far as it tells packets apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransformPolicy {
    pub(crate) direction: Direction,
    pub(crate) source: Ipv4Net,
    pub(crate) destination: Ipv4Net,
    /// The IP protocol; 0 for all.
    pub(crate) protocol: u8,
    /// The port that packets go to, in the bits of the mask.
    pub(crate) port: u16,
    pub(crate) port_mask: u16,
}

impl TransformPolicy {
    /// Whether it is about VXLAN between this host and a peer. By which port that leaves depends on what is inside,
    /// so a policy that goes by it counts.
    pub(crate) fn concerns(&self, host: Ipv4Addr, peer: Ipv4Addr, vxlan_port: u16) -> bool {
        let (from, to) = match self.direction {
            Direction::Out => (host, peer),
            Direction::In => (peer, host),
        };
        self.source.contains(&from)
            && self.destination.contains(&to)
            && (self.protocol == 0 || self.protocol == PROTOCOL_UDP)
            && self.port & self.port_mask == vxlan_port & self.port_mask
    }

    fn of(info: &UserPolicyInfo) -> Option<Self> {
        let selector = &info.selector;
        let direction = match info.direction {
            XFRM_POLICY_IN => Direction::In,
            XFRM_POLICY_OUT => Direction::Out,
            // What is forwarded, and what single sockets ask for.
            _ => return None,
        };
        // One without a family is about all of them, and has no addresses.
        if ![0, libc::AF_INET as u16].contains(&selector.family) {
            return None;
        }
        let net = |address: [u8; 16], length| {
            let [a, b, c, d, ..] = address;
            Ipv4Net::new(Ipv4Addr::new(a, b, c, d), length).ok()
        };
        Some(Self {
            direction,
            source: net(selector.saddr.addr, selector.prefixlen_s)?,
            destination: net(selector.daddr.addr, selector.prefixlen_d)?,
            protocol: selector.proto,
            port: selector.dport,
            port_mask: selector.dport_mask,
        })
    }
}

/// The policies of this network namespace: a handful on most hosts, of which most have none.
///
/// # Errors
///
/// The kernel's answer; one without IPsec has no policies.
pub(crate) fn policies() -> io::Result<Vec<TransformPolicy>> {
    let reader = match Reader::of(NETLINK_XFRM) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        other => other?,
    };
    let question = message(XFRM_MSG_GETPOLICY, NLM_F_REQUEST | NLM_F_DUMP, &[0; 4], &[]);
    let mut policies = Vec::new();
    reader.ask(&question, |message| {
        let info = UserPolicyInfo::parse(message.get(HEADER_LEN..)?).ok()?;
        policies.extend(TransformPolicy::of(&info));
        Some(())
    })?;
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn policy(direction: Direction, source: &str, destination: &str) -> TransformPolicy {
        TransformPolicy {
            direction,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 0,
            port: 0,
            port_mask: 0,
        }
    }

    #[test]
    fn a_policy_concerns_the_packets_of_its_direction_that_it_would_meet() {
        let out = policy(Direction::Out, "192.0.2.1/32", "192.0.2.2/32");
        assert!(out.concerns(HOST, PEER, 4789));
        let inbound = policy(Direction::In, "192.0.2.0/24", "0.0.0.0/0");
        assert!(inbound.concerns(HOST, PEER, 4789));
        let of_others = policy(Direction::Out, "192.0.2.1/32", "198.51.100.0/24");
        assert!(!of_others.concerns(HOST, PEER, 4789));
        let backwards = policy(Direction::In, "192.0.2.1/32", "192.0.2.2/32");
        assert!(!backwards.concerns(HOST, PEER, 4789));
    }

    #[test]
    fn a_policy_for_another_protocol_or_port_concerns_nothing_of_ours() {
        let all = policy(Direction::Out, "0.0.0.0/0", "0.0.0.0/0");
        let of = |protocol, port, port_mask| TransformPolicy {
            protocol,
            port,
            port_mask,
            ..all
        };
        assert!(of(PROTOCOL_UDP, 4789, 0xffff).concerns(HOST, PEER, 4789));
        assert!(of(PROTOCOL_UDP, 4784, 0xfff0).concerns(HOST, PEER, 4789));
        assert!(!of(PROTOCOL_UDP, 53, 0xffff).concerns(HOST, PEER, 4789));
        assert!(!of(6, 0, 0).concerns(HOST, PEER, 4789));
    }

    #[test]
    fn the_policies_of_a_namespace_can_be_read() {
        // Whether there are any is the machine's business.
        policies().unwrap();
    }
}
