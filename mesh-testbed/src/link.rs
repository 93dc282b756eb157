//! Interfaces, addresses and routes of a namespace, over rtnetlink.

mod stacked;

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd as _,
    time::Duration,
};

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use crate::{
    entrance::Entrance,
    error::{Error, Result},
    netns::NetNs,
};

/// The kernel answers at once, unless it emulates or somebody holds its network configuration
/// lock.
const ANSWER: Duration = Duration::from_secs(60);

/// The interfaces of one namespace.
#[derive(Debug, Clone)]
pub struct Links {
    namespace: Entrance,
    handle: Handle,
}

/// One IPv4 route of a namespace's main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRoute {
    /// The destination; 0.0.0.0/0 for a default route.
    pub destination: Ipv4Net,
    /// The outgoing interface's index, 0 when there is none.
    pub interface_index: u32,
    /// The outgoing interface's name, empty when there is none.
    pub interface: String,
    /// The next hop, if the destination is not on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Who made it, e.g. 2 for the kernel itself, 4 for `ip route` (rt_protos).
    pub protocol: u8,
}

impl std::fmt::Display for KernelRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {} proto {}", self.interface, self.protocol)
    }
}

/// A pair of virtual Ethernet interfaces between two namespaces.
pub(crate) struct VethPair<'a> {
    pub(crate) name: &'a str,
    pub(crate) peer: &'a str,
    pub(crate) peer_namespace: &'a NetNs,
    pub(crate) mtu: u32,
}

impl Links {
    /// The interfaces of `namespace`.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered.
    pub fn of(namespace: &NetNs) -> Result<Self> {
        Ok(Self {
            namespace: namespace.entrance(),
            handle: namespace.netlink()?,
        })
    }

    /// The index of an interface, or `None` when there is none of that name.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn index(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.get(name).await?.map(|link| link.header.index))
    }

    /// The message with all of an interface's attributes, or `None` when there is none.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn get(&self, name: &str) -> Result<Option<LinkMessage>> {
        let mut answers = self.handle.link().get().match_name(name).execute();
        let looked = async {
            match answers.try_next().await {
                Err(rtnetlink::Error::NetlinkError(error)) if -error.raw_code() == libc::ENODEV => {
                    Ok(None)
                }
                other => other,
            }
        };
        self.answered(format!("look up interface {name}"), looked)
            .await
    }

    /// Sets an interface up.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn up(&self, name: &str) -> Result<()> {
        let change = self.change(name).await?.up();
        self.apply(format!("set {name} up"), change).await
    }

    /// Sets an interface down.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn down(&self, name: &str) -> Result<()> {
        let change = self.change(name).await?.down();
        self.apply(format!("set {name} down"), change).await
    }

    /// Changes an interface's MTU, in bytes.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        let change = self.change(name).await?.mtu(mtu);
        self.apply(format!("set the MTU of {name} to {mtu}"), change)
            .await
    }

    /// Enslaves an interface to a bridge or a bond.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn enslave(&self, name: &str, controller: &str) -> Result<()> {
        let index = self.require(controller, "create it first").await?;
        let change = self.change(name).await?.controller(index);
        self.apply(format!("enslave {name} to {controller}"), change)
            .await
    }

    /// Takes an interface out of its bridge.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn release(&self, name: &str) -> Result<()> {
        let change = self.change(name).await?.nocontroller();
        self.apply(format!("take {name} out of its bridge"), change)
            .await
    }

    /// Creates a bridge that forwards at once (no spanning tree), and sets it up.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn add_bridge(&self, name: &str, mtu: u32) -> Result<()> {
        let message = LinkBridge::new(name)
            .forward_delay(0)
            .mcast_snooping(false)
            .mtu(mtu)
            .up()
            .build();
        self.answered(
            format!("create bridge {name}"),
            self.handle.link().add(message).execute(),
        )
        .await
    }

    /// Creates a pair of virtual Ethernet interfaces with offloads like a NIC's, both up.
    pub(crate) async fn add_veth(&self, pair: &VethPair<'_>) -> Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.peer)
            .mtu(pair.mtu)
            .setns_by_fd(pair.peer_namespace.entrance().fd().as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(pair.name)
            .mtu(pair.mtu)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.answered(
            format!("create veth pair {}", pair.name),
            self.handle.link().add(message).execute(),
        )
        .await?;
        Self::of(pair.peer_namespace)?.up(pair.peer).await
    }

    /// Deletes an interface.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let index = self.require(name, "it is gone already").await?;
        self.answered(
            format!("delete interface {name}"),
            self.handle.link().del(index).execute(),
        )
        .await
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn add_address(&self, name: &str, address: Ipv4Net) -> Result<()> {
        let index = self.require(name, "create it first").await?;
        self.answered(
            format!("add address {address} to {name}"),
            self.handle
                .address()
                .add(index, IpAddr::V4(address.addr()), address.prefix_len())
                .execute(),
        )
        .await
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn delete_address(&self, name: &str, address: Ipv4Net) -> Result<()> {
        let index = self.require(name, "it is gone already").await?;
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(address.addr(), address.prefix_len())
            .build();
        self.answered(
            format!("delete address {address} of {name}"),
            self.handle.address().del(message).execute(),
        )
        .await
    }

    /// The IPv4 addresses of an interface, with their prefix lengths.
    ///
    /// # Errors
    ///
    /// The kernel's answer, or no such interface.
    pub async fn addresses(&self, name: &str) -> Result<Vec<Ipv4Net>> {
        let index = self.require(name, "create it first").await?;
        let answers: Vec<_> = self
            .answered(
                format!("read the addresses of {name}"),
                self.handle
                    .address()
                    .get()
                    .set_link_index_filter(index)
                    .execute()
                    .try_collect(),
            )
            .await?;
        let local = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        };
        Ok(answers
            .iter()
            .filter_map(|message| {
                let address = message.attributes.iter().find_map(local)?;
                Ipv4Net::new(address, message.header.prefix_len).ok()
            })
            .collect())
    }

    /// Adds a route through a gateway.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn add_route(&self, destination: Ipv4Net, gateway: Ipv4Addr) -> Result<()> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .gateway(gateway)
            .build();
        self.answered(
            format!("add route {destination} via {gateway}"),
            self.handle.route().add(message).execute(),
        )
        .await
    }

    /// The unicast IPv4 routes of the main table, as `ip route` lists them.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn routes(&self) -> Result<Vec<KernelRoute>> {
        let names: Vec<LinkMessage> = self
            .answered(
                "list interfaces".into(),
                self.handle.link().get().execute().try_collect(),
            )
            .await?;
        let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let messages: Vec<RouteMessage> = self
            .answered(
                "list routes".into(),
                self.handle.route().get(request).execute().try_collect(),
            )
            .await?;
        Ok(messages
            .iter()
            .filter_map(|message| kernel_route(message, &names))
            .collect())
    }

    async fn require(&self, name: &str, hint: &'static str) -> Result<u32> {
        self.index(name).await?.ok_or_else(|| Error::NoInterface {
            namespace: self.namespace.name().into(),
            interface: name.into(),
            hint,
        })
    }

    async fn change(&self, name: &str) -> Result<LinkMessageBuilder<LinkUnspec>> {
        let index = self.require(name, "create it first").await?;
        Ok(LinkUnspec::new_with_index(index))
    }

    async fn apply(&self, action: String, change: LinkMessageBuilder<LinkUnspec>) -> Result<()> {
        self.answered(action, self.handle.link().change(change.build()).execute())
            .await
    }

    /// Waits for a request's answer, not for ever.
    async fn answered<T>(
        &self,
        action: String,
        request: impl Future<Output = std::result::Result<T, rtnetlink::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(ANSWER, request).await {
            Ok(answer) => answer.map_err(|source| Error::Netlink {
                action,
                namespace: self.namespace.name().into(),
                source,
            }),
            Err(_) => Err(Error::Deadline {
                what: format!("the kernel's answer to \"{action}\""),
                waited: ANSWER,
                state: format!("silence in {}", self.namespace.name()),
            }),
        }
    }
}

/// Reads a route message; `None` for other tables, families and kinds of routes.
fn kernel_route(message: &RouteMessage, links: &[LinkMessage]) -> Option<KernelRoute> {
    const MAIN_TABLE: u32 = 254;
    let header = &message.header;
    if header.address_family != AddressFamily::Inet || header.kind != RouteType::Unicast {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut gateway = None;
    let mut interface_index = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::Destination(RouteAddress::Inet(value)) => destination = *value,
            RouteAttribute::Gateway(RouteAddress::Inet(value)) => gateway = Some(*value),
            RouteAttribute::Oif(value) => interface_index = *value,
            _ => {}
        }
    }
    let interface = links
        .iter()
        .find(|link| link.header.index == interface_index)
        .and_then(link_name)
        .unwrap_or_default();
    (table == MAIN_TABLE).then_some(())?;
    Some(KernelRoute {
        destination: Ipv4Net::new(destination, header.destination_prefix_length).ok()?,
        interface_index,
        interface,
        gateway,
        protocol: RouteProtocol::into(header.protocol),
    })
}

fn link_name(link: &LinkMessage) -> Option<String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
}
