//! Policy rules that come before table main, and with it before our routes (ip-rule(8)), as a VPN's exit node sets
//! them.

use std::net::Ipv4Addr;

use futures_util::StreamExt as _;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage},
    rule::{RuleAttribute, RuleMessage},
};
use rtnetlink::IpVersion;

use super::Observed;
use crate::{
    netlink::{Netlink, NetlinkError, answer, dump},
    wanted::subnet::gateway,
};

/// Priority of the rule that leads to table main (`fib_default_rules_init`, net/ipv4/fib_rules.c).
const MAIN: u32 = 32_766;

/// Peers that are asked about: a rule before main is seldom about one of them alone.
const ASKED: usize = 8;

/// What is for a peer's containers goes elsewhere than over the VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Diversion {
    /// The peer's subnet.
    pub(crate) subnet: Ipv4Net,
    /// Index of the interface over which it goes; `None` if it goes nowhere.
    pub(crate) link: Option<u32>,
    /// A priority before that of the first rule that decides.
    pub(crate) before: u32,
}

/// Finds the first of some peers for which another rule than that of table main decides. It is told by our own route
/// that the kernel does not use: a rule may be about anything, and is not read for its meaning.
pub(super) async fn find(
    netlink: &Netlink,
    observed: &Observed,
    bridge: Option<u32>,
    overlay: Option<u32>,
) -> Result<Option<Diversion>, NetlinkError> {
    // A device that is down leads nowhere, whatever rules say.
    let up = |link: &u32| observed.links.get(link).is_some_and(|link| link.up);
    let (Some(bridge), Some(overlay)) = (bridge.filter(up), overlay.filter(up)) else {
        return Ok(None);
    };
    let Some(first) = first_rule(netlink).await? else {
        return Ok(None);
    };
    let source = observed
        .addresses
        .iter()
        .find(|held| held.link == bridge)
        .map(|held| held.address.addr());
    let ours = observed.routes.iter();
    let ours = ours.filter(|route| route.is_ours() && route.link == Some(overlay));
    for subnet in ours.map(|route| route.destination).take(ASKED) {
        let link = leads_over(netlink, gateway(subnet), source, bridge).await?;
        if link != Some(overlay) {
            return Ok(Some(Diversion {
                subnet,
                link,
                before: first.saturating_sub(1).max(1),
            }));
        }
    }
    Ok(None)
}

/// Priority of the first rule behind that of the host's own addresses, if it comes before that of table main.
async fn first_rule(netlink: &Netlink) -> Result<Option<u32>, NetlinkError> {
    let request = netlink.handle.rule().get(IpVersion::V4);
    let priorities = dump(request.execute(), |rule| Some(priority(rule))).await?;
    let behind_local = priorities.into_iter().filter(|&it| it > 0 && it < MAIN);
    Ok(behind_local.min())
}

/// A rule without a priority has the first.
fn priority(rule: &RuleMessage) -> u32 {
    let priority = rule
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
    priority.unwrap_or(0)
}

/// The interface over which the kernel sends what a container has for an address.
async fn leads_over(
    netlink: &Netlink,
    to: Ipv4Addr,
    from: Option<Ipv4Addr>,
    bridge: u32,
) -> Result<Option<u32>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(to))];
    match from {
        // Of an address of this host itself the kernel takes no packet that arrives.
        Some(from) => {
            message.header.source_prefix_length = 32;
            let source = Ipv4Addr::from_bits(from.to_bits() | 2);
            let source = RouteAttribute::Source(RouteAddress::Inet(source));
            message.attributes.push(source);
            message.attributes.push(RouteAttribute::Iif(bridge));
        }
        None => return Ok(None),
    }
    let request = netlink.handle.route().get(message);
    let mut answers = std::pin::pin!(request.execute());
    match answer(async { answers.next().await.transpose() }).await {
        Ok(message) => Ok(message.and_then(|route| {
            route
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Oif(link) => Some(*link),
                    _ => None,
                })
        })),
        Err(NetlinkError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
