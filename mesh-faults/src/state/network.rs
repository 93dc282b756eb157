//! Devices, addresses, routes, neighbours and forwarding entries, over netlink.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use mesh_testbed::BRIDGE;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use super::{HostState, Interfaces, OVERLAY, UNDERLAY};

const MAIN_TABLE: u8 = 254;

/// Notes what there is, and returns the interfaces.
pub(super) async fn observe(netlink: &Handle, state: &mut HostState) -> Result<Interfaces, Error> {
    let links: Vec<LinkMessage> = netlink.link().get().execute().try_collect().await?;
    let interfaces = interfaces(&links);
    for link in &links {
        state.extend(device(link, &interfaces));
    }
    let mut addresses = netlink.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let name = interfaces.name(message.header.index);
        let local = message.attributes.iter().find_map(|it| match it {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(address),
            _ => None,
        });
        if let Some(address) = local.filter(|_| name != "lo") {
            let length = message.header.prefix_len;
            state.insert(format!("address {address}/{length} dev {name}"));
        }
    }
    let any = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = netlink.route().get(any).execute();
    while let Some(message) = routes.try_next().await? {
        state.extend(route(&message, &interfaces));
    }
    let mut neighbours = netlink.neighbours().get().execute();
    while let Some(message) = neighbours.try_next().await? {
        state.extend(neighbour(&message, &interfaces));
    }
    let mut request = netlink.neighbours().get();
    request.message_mut().header.family = AddressFamily::Bridge;
    let mut entries = request.execute();
    while let Some(message) = entries.try_next().await? {
        state.extend(forwarding(&message, &interfaces));
    }
    Ok(interfaces)
}

fn interfaces(links: &[LinkMessage]) -> Interfaces {
    let mut interfaces = Interfaces::default();
    for link in links {
        if let Some(name) = name(link) {
            interfaces.names.insert(link.header.index, name.to_owned());
        }
    }
    for link in links {
        let controller = link.attributes.iter().find_map(|it| match it {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        });
        if let (Some(index), Some(name)) = (controller, name(link))
            && interfaces.name(index) == BRIDGE
        {
            interfaces.ports.insert(name.to_owned());
        }
    }
    interfaces
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|it| match it {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Our two devices with what matters of them, the ports, and what else speaks VXLAN.
fn device(link: &LinkMessage, interfaces: &Interfaces) -> Option<String> {
    let name = name(link)?;
    let mut mac = String::new();
    let mut mtu = 0;
    let mut vxlan: Option<&Vec<InfoVxlan>> = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = hex(bytes),
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::LinkInfo(infos) => {
                vxlan = infos.iter().find_map(|info| match info {
                    LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let up = match link.header.flags.contains(LinkFlags::Up) {
        true => "up",
        false => "down",
    };
    if interfaces.ports.contains(name) {
        return Some(format!("port {name} of {BRIDGE} {up} mtu {mtu}"));
    }
    if let Some(data) = vxlan {
        return Some(format!(
            "vxlan {name} {up} mac {mac} mtu {mtu}{}",
            vxlan_options(data, interfaces)
        ));
    }
    match name {
        BRIDGE | OVERLAY => Some(format!("device {name} {up} mac {mac} mtu {mtu}")),
        UNDERLAY => Some(format!("device {name} {up} mtu {mtu}")),
        _ => None,
    }
}

fn vxlan_options(data: &[InfoVxlan], interfaces: &Interfaces) -> String {
    let option = |it: &InfoVxlan| match it {
        InfoVxlan::Id(vni) => Some(format!(" id {vni}")),
        InfoVxlan::Port(port) => Some(format!(" port {port}")),
        InfoVxlan::Local(address) => Some(format!(" local {address}")),
        InfoVxlan::Link(index) if *index != 0 => Some(format!(" dev {}", interfaces.name(*index))),
        InfoVxlan::Learning(true) => Some(" learning".to_owned()),
        InfoVxlan::CollectMetadata(true) => Some(" external".to_owned()),
        _ => None,
    };
    data.iter().filter_map(option).collect()
}

fn route(message: &RouteMessage, interfaces: &Interfaces) -> Option<String> {
    if message.header.table != MAIN_TABLE
        || message.header.kind != RouteType::Unicast
        || message.header.address_family != AddressFamily::Inet
    {
        return None;
    }
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut text = String::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                text += &format!(" via {address}");
            }
            RouteAttribute::Oif(index) => text += &format!(" dev {}", interfaces.name(*index)),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                text += &format!(" src {address}");
            }
            _ => {}
        }
    }
    let length = message.header.destination_prefix_length;
    let protocol: u8 = message.header.protocol.into();
    Some(format!(
        "route {destination}/{length}{text} proto {protocol}"
    ))
}

/// The fixed neighbours on the overlay device; what the kernel learns elsewhere comes and goes.
fn neighbour(message: &NeighbourMessage, interfaces: &Interfaces) -> Option<String> {
    let device = interfaces.name(message.header.ifindex);
    let fixed = message.header.state == NeighbourState::Permanent;
    if device != OVERLAY || !fixed {
        return None;
    }
    let address = message.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(address),
        _ => None,
    })?;
    Some(format!(
        "neighbour {address} mac {} dev {device}",
        mac_of(message)
    ))
}

fn forwarding(message: &NeighbourMessage, interfaces: &Interfaces) -> Option<String> {
    let device = interfaces.name(message.header.ifindex);
    if device != OVERLAY {
        return None;
    }
    let remote = message.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(address),
        _ => None,
    })?;
    Some(format!(
        "forwarding {} to {remote} dev {device}",
        mac_of(message)
    ))
}

fn mac_of(message: &NeighbourMessage) -> String {
    message
        .attributes
        .iter()
        .find_map(|it| match it {
            NeighbourAttribute::LinkLayerAddress(bytes) => Some(hex(bytes)),
            _ => None,
        })
        .unwrap_or_default()
}

/// A MAC address as `ip` prints it.
pub(super) fn hex(bytes: &[u8]) -> String {
    let octets: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    octets.join(":")
}
