//! An interface beside another one of the same subnet.
//!
//! What a container sends it sends by the interface that its routes name, whatever address it sends from. With two
//! interfaces of one subnet that is one of them for both addresses, and at its port the other one's packets are taken
//! for forged. So what has the second one's address goes by a table of its own, and the first one's routes stay alone
//! in the main one.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use netlink_packet_route::{address::AddressAttribute, route::RouteScope, rule::RuleAction};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{InsideError, Work};

/// Of the rules: before the main table (32,766), after what an operator puts in front. Named, so that a rule that is there
/// is found.
const PRIORITY: u32 = 32_000;

impl Work {
    /// Whether another interface has an address of this one's subnet, and its routes: none of these is there yet.
    /// Where a default route is asked for, nobody is second.
    pub(super) async fn is_second(&self, handle: &Handle, link: u32) -> Result<bool, InsideError> {
        for &destination in &self.routes {
            if destination.prefix_len() == 0 || self.has_route(handle, link, destination).await? {
                return Ok(false);
            }
        }
        let mut addresses = handle.address().get().execute();
        while let Some(address) = addresses
            .try_next()
            .await
            .map_err(|error| self.refused("read the addresses", &error))?
        {
            let of_it = |it: &AddressAttribute| match it {
                AddressAttribute::Local(IpAddr::V4(local)) => self.address.contains(local),
                _ => false,
            };
            if address.header.index != link && address.attributes.iter().any(of_it) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Has what is sent from this interface's address go by this interface. The rule stays in the container when the
    /// interface goes, and leads nowhere then.
    pub(super) async fn route_by_source(
        &self,
        handle: &Handle,
        link: u32,
    ) -> Result<(), InsideError> {
        let address = self.address.addr();
        // No other interface has it.
        let table = u32::from(address);
        let route = |to: Ipv4Net| {
            RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.addr(), to.prefix_len())
                .output_interface(link)
                .table_id(table)
        };
        let subnet = route(self.address.trunc()).scope(RouteScope::Link).build();
        let others = route(Ipv4Net::default()).gateway(self.gateway).build();
        for message in [subnet, others] {
            self.settle(
                &format!("route what is sent from {address}"),
                handle.route().add(message).execute().await,
            )?;
        }
        let rule = handle.rule().add().v4().source_prefix(address, 32);
        let rule = rule.table_id(table).action(RuleAction::ToTable);
        let rule = rule.priority(PRIORITY);
        self.settle(
            &format!("add the rule for what is sent from {address}"),
            rule.execute().await,
        )
    }
}
