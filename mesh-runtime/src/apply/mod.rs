//! Makes the changes of a plan.

pub(crate) mod firewall;
pub(crate) mod qdisc;
pub(crate) mod sysctl;
pub(crate) mod veth;

use std::{collections::BTreeMap, net::IpAddr};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    link::{
        InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo,
    },
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
        NeighbourState as State,
    },
    route::{RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVxlan,
    RouteMessageBuilder,
};

use crate::{
    desired::entries::OverlayRoute,
    diff::change::{Change, Stage},
    headroom,
    netlink::{Netlink, NetlinkError, answer},
    observed::{LinkKind, Observed, ROUTE_PROTOCOL, port_holder},
    problem::Problem,
    settings::{Device, Settings},
    wanted::node_settings::NodeSettings,
};

/// MAC addresses that our bridge learns at most: four for each of the ports that a bridge can have.
const MAX_LEARNED: u32 = 4096;

/// Changes in flight at a time: few enough for their answers to fit a socket's buffer.
const IN_FLIGHT: usize = 32;

/// Makes changes on one kernel.
pub(crate) struct Applier<'a> {
    netlink: &'a Netlink,
    settings: &'a Settings,
    indexes: BTreeMap<Device, u32>,
    /// The UDP port of the VXLAN device, as observed or made.
    vxlan_port: u16,
}

impl<'a> Applier<'a> {
    /// Starts from what was observed, where the devices' indexes come from.
    pub(crate) fn new(netlink: &'a Netlink, settings: &'a Settings, observed: &Observed) -> Self {
        let index = |name: &str| observed.link_named(name).map(|link| link.index);
        let indexes = [
            (Device::Bridge, index(&settings.bridge)),
            (Device::Overlay, index(&settings.overlay)),
        ];
        let overlay = observed.link_named(&settings.overlay);
        let vxlan_port = match overlay.map(|link| &link.kind) {
            Some(LinkKind::Vxlan(vxlan)) => vxlan.port,
            _ => NodeSettings::default().vxlan_port,
        };
        Self {
            netlink,
            settings,
            vxlan_port,
            indexes: indexes
                .into_iter()
                .filter_map(|(device, index)| Some((device, index?)))
                .collect(),
        }
    }

    /// Makes `changes`, which are in the order of their stages. What fails is reported and
    /// does not stop the rest, except for what needs a device that could not be made.
    pub(crate) async fn apply(&mut self, changes: &[Change]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut broken = Vec::new();
        for stage in changes.chunk_by(|a, b| a.stage() == b.stage()) {
            if stage[0].stage() == Stage::Devices {
                problems.extend(self.apply_devices(stage, &mut broken).await);
            } else {
                problems.extend(self.apply_entries(stage, &broken).await);
            }
        }
        problems
    }

    async fn apply_devices(&mut self, stage: &[Change], broken: &mut Vec<Device>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for change in stage {
            if change.needs_any(broken) {
                continue;
            }
            match self.apply_device(change).await {
                Ok(()) => tracing::info!(name: "kernel-changed", %change, "changed"),
                Err(error) if change.is_optional() => {
                    tracing::debug!(name: "without-headroom", %change, %error, "going on without headroom");
                }
                Err(error) => {
                    problems.push(self.failed(change, &error).await);
                    if change.makes_device() {
                        broken.extend(change.device());
                    }
                }
            }
        }
        problems
    }

    async fn apply_entries(&self, stage: &[Change], broken: &[Device]) -> Vec<Problem> {
        let mut requests = Vec::new();
        for change in stage.iter().filter(|change| !change.needs_any(broken)) {
            requests.push(async move { (change, self.apply_entry(change).await) }.boxed());
        }
        let mut answers = stream::iter(requests).buffer_unordered(IN_FLIGHT);
        let mut problems = Vec::new();
        while let Some((change, result)) = answers.next().await {
            match result {
                Ok(()) => tracing::debug!(name: "kernel-changed", %change, "changed"),
                Err(error) => problems.push(self.failed(change, &error).await),
            }
        }
        problems
    }

    async fn failed(&self, change: &Change, error: &NetlinkError) -> Problem {
        Problem::ChangeFailed {
            change: change.clone(),
            reason: explain(change, error, self.settings, self.vxlan_port).await,
        }
    }

    async fn apply_device(&mut self, change: &Change) -> Result<(), NetlinkError> {
        let handle = &self.netlink.handle;
        match change {
            Change::EnableForwarding => sysctl::enable_ip_forward().map_err(of_setting),
            Change::SetSettings(device) => {
                sysctl::set_up(self.settings.name(*device)).map_err(of_setting)
            }
            Change::DeleteDevice(device) => {
                let index = self.index(*device)?;
                self.indexes.remove(device);
                gone_is_fine(answer(handle.link().del(index).execute()).await)
            }
            Change::CreateBridge { mac } => {
                // `LinkBridge::new` would also bring it up, before it has its settings.
                // A container that floods the table would make every look at it take seconds. Kernels
                // before 6.7 know no limit, and leave it out.
                let limit = InfoBridge::FdbMaxLearned(MAX_LEARNED);
                let message = LinkMessageBuilder::<LinkBridge>::new(&self.settings.bridge)
                    .address(mac.to_vec())
                    .set_info_data(InfoData::Bridge(vec![limit]));
                answer(handle.link().add(message.build()).execute()).await?;
                self.learn_index(Device::Bridge).await
            }
            Change::CreateOverlay {
                mac,
                mtu,
                local,
                settings,
            } => {
                self.vxlan_port = settings.vxlan_port;
                let message = LinkVxlan::new(&self.settings.overlay, settings.vni)
                    .port(settings.vxlan_port)
                    .local(*local)
                    .learning(false)
                    // RFC 7348 has none; with one, every packet would leave the fast path of
                    // its receiver for the kernel, which alone can verify it.
                    .udp_csum(false)
                    .address(mac.to_vec())
                    .mtu(*mtu)
                    .build();
                answer(handle.link().add(message).execute()).await?;
                sysctl::suppress_link_local(&self.settings.overlay);
                self.learn_index(Device::Overlay).await
            }
            Change::SetMac(device, mac) => {
                let link = LinkUnspec::new_with_index(self.index(*device)?).address(mac.to_vec());
                answer(handle.link().change(link.build()).execute()).await
            }
            Change::SetMtu(device, mtu) => {
                let link = LinkUnspec::new_with_index(self.index(*device)?).mtu(*mtu);
                answer(handle.link().change(link.build()).execute()).await
            }
            Change::SetLocal(local) => {
                let link = LinkMessageBuilder::<LinkVxlan>::new(&self.settings.overlay)
                    .index(self.index(Device::Overlay)?)
                    .local(*local);
                answer(handle.link().change(link.build()).execute()).await
            }
            Change::SetUp(device) => {
                let link = LinkUnspec::new_with_index(self.index(*device)?).up();
                answer(handle.link().change(link.build()).execute()).await
            }
            Change::Enslave { port } => {
                let link = LinkUnspec::new_with_index(*port);
                let link = link.controller(self.index(Device::Bridge)?).build();
                gone_is_fine(answer(handle.link().change(link).execute()).await)
            }
            Change::AddAddress(address) => {
                let bridge = self.index(Device::Bridge)?;
                let add =
                    handle
                        .address()
                        .add(bridge, IpAddr::V4(address.addr()), address.prefix_len());
                there_is_fine(answer(add.execute()).await)
            }
            Change::RemoveAddress(address) => {
                let message = AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                    .index(self.index(Device::Bridge)?)
                    .address(address.addr(), address.prefix_len())
                    .build();
                gone_is_fine(answer(handle.address().del(message).execute()).await)
            }
            Change::Headroom(change) => {
                // What is deleted may be all that is left.
                let bridge = self.index(Device::Bridge).unwrap_or(0);
                headroom::apply(handle, *change, bridge).await
            }
            other => self.apply_entry(other).await,
        }
    }

    /// Makes a change that is no device's.
    pub(crate) async fn apply_entry(&self, change: &Change) -> Result<(), NetlinkError> {
        let handle = &self.netlink.handle;
        match change {
            Change::AddRoute(route) => {
                let message = self.route_message(route)?;
                answer(handle.route().add(message).execute()).await
            }
            Change::ReplaceRoute(route) => {
                let message = self.route_message(route)?;
                answer(handle.route().add(message).replace().execute()).await
            }
            Change::RemoveRoute {
                destination,
                metric,
            } => {
                let message = own_route(*destination, *metric);
                gone_is_fine(answer(handle.route().del(message).execute()).await)
            }
            Change::SetNeighbour { address, mac } => {
                let overlay = self.index(Device::Overlay)?;
                let add = handle
                    .neighbours()
                    .add(overlay, IpAddr::V4(*address))
                    .state(State::Permanent)
                    .link_layer_address(mac)
                    .replace();
                answer(add.execute()).await
            }
            Change::RemoveNeighbour { address } | Change::ForgetContainer { address } => {
                let device = change.device().unwrap_or(Device::Overlay);
                let mut message = NeighbourMessage::default();
                message.header.family = AddressFamily::Inet;
                message.header.ifindex = self.index(device)?;
                message
                    .attributes
                    .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(
                        *address,
                    )));
                gone_is_fine(answer(handle.neighbours().del(message).execute()).await)
            }
            Change::PinContainer { mac, port } => {
                let add = handle
                    .neighbours()
                    .add_bridge(*port, mac)
                    // Kernels before 4.20 know no sticky entries: theirs moves with the next frame.
                    .flags(NeighbourFlags::Controller | NeighbourFlags::Sticky)
                    .state(State::Noarp)
                    .replace();
                gone_is_fine(answer(add.execute()).await)
            }
            Change::GiveBack { port } => {
                let mut message = LinkUnspec::new_with_index(*port).build();
                let hairpin = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
                message.attributes.push(LinkAttribute::LinkInfo(vec![
                    LinkInfo::PortKind(InfoPortKind::Bridge),
                    LinkInfo::PortData(hairpin),
                ]));
                gone_is_fine(answer(handle.link().change(message).execute()).await)
            }
            Change::UnpinContainer { mac, port } => {
                let mut message = NeighbourMessage::default();
                message.header.family = AddressFamily::Bridge;
                message.header.ifindex = *port;
                message.header.flags = NeighbourFlags::Controller;
                message
                    .attributes
                    .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
                gone_is_fine(answer(handle.neighbours().del(message).execute()).await)
            }
            Change::SetForwarding { mac, remote } => {
                let overlay = self.index(Device::Overlay)?;
                let add = handle
                    .neighbours()
                    .add_bridge(overlay, mac)
                    .flags(NeighbourFlags::Own)
                    .state(State::Permanent)
                    .destination(IpAddr::V4(*remote))
                    .replace();
                answer(add.execute()).await
            }
            Change::RemoveForwarding { mac, remote } => {
                let mut message = NeighbourMessage::default();
                message.header.family = AddressFamily::Bridge;
                message.header.ifindex = self.index(Device::Overlay)?;
                message.header.flags = NeighbourFlags::Own;
                message
                    .attributes
                    .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
                if let Some(remote) = remote {
                    message.attributes.push(NeighbourAttribute::Destination(
                        NeighbourAddress::Inet(*remote),
                    ));
                }
                gone_is_fine(answer(handle.neighbours().del(message).execute()).await)
            }
            other => Err(NetlinkError::Unexpected(format!(
                "{other} is a change of a device"
            ))),
        }
    }

    fn route_message(&self, route: &OverlayRoute) -> Result<RouteMessage, NetlinkError> {
        let mut message = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(route.destination.network(), route.destination.prefix_len())
            .gateway(route.gateway())
            .onlink()
            .output_interface(self.index(Device::Overlay)?)
            .pref_source(route.source)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build();
        let metrics = route.mtu.map(|mtu| vec![RouteMetric::Mtu(mtu)]);
        message
            .attributes
            .extend(metrics.map(RouteAttribute::Metrics));
        Ok(message)
    }

    fn index(&self, device: Device) -> Result<u32, NetlinkError> {
        self.indexes
            .get(&device)
            .copied()
            .ok_or(NetlinkError::Refused {
                errno: libc::ENODEV,
            })
    }

    async fn learn_index(&mut self, device: Device) -> Result<(), NetlinkError> {
        let name = self.settings.name(device).to_owned();
        let links = self.netlink.handle.link().get().match_name(name).execute();
        let link = answer(std::pin::pin!(links).try_next()).await?;
        let link = link.ok_or(NetlinkError::Refused {
            errno: libc::ENODEV,
        })?;
        self.indexes.insert(device, link.header.index);
        Ok(())
    }
}

/// The kernel's answer to a change of a setting that is a file.
fn of_setting(error: std::io::Error) -> NetlinkError {
    match error.raw_os_error() {
        Some(errno) => NetlinkError::Refused { errno },
        None => NetlinkError::Unexpected(error.to_string()),
    }
}

/// The message that names one of our routes and no other's: the kernel compares protocol and
/// metric, and with these values neither scope nor type (`fib_table_delete`).
fn own_route(destination: Ipv4Net, metric: u32) -> RouteMessage {
    let mut message = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .destination_prefix(destination.network(), destination.prefix_len())
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
        .priority(metric)
        .build();
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    message
}

fn gone_is_fine(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result.as_ref().map_err(NetlinkError::errno) {
        Err(Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL)) => Ok(()),
        _ => result,
    }
}

fn there_is_fine(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result.as_ref().map_err(NetlinkError::errno) {
        Err(Some(libc::EEXIST)) => Ok(()),
        _ => result,
    }
}

/// The kernel's reason, with what is known about its likely cause.
async fn explain(
    change: &Change,
    error: &NetlinkError,
    settings: &Settings,
    vxlan_port: u16,
) -> String {
    match (change, error.errno()) {
        (Change::SetUp(Device::Overlay), Some(libc::EADDRINUSE)) => {
            let holder =
                tokio::task::spawn_blocking(move || port_holder::describe_holder(vxlan_port))
                    .await
                    .ok()
                    .flatten()
                    .unwrap_or_else(|| "another VXLAN device or a tunnel of the kernel".to_owned());
            format!(
                "UDP port {vxlan_port} is taken by {holder}: stop it, {} needs the port \
                 (ss -lunp 'sport = :{vxlan_port}' shows who has it)",
                settings.overlay
            )
        }
        (Change::AddRoute(_), Some(libc::EEXIST)) => {
            "somebody else has made one in this moment: it is left alone".to_owned()
        }
        (Change::CreateOverlay { settings, .. }, Some(libc::EEXIST)) => format!(
            "another VXLAN device has VNI {} on UDP port {vxlan_port} \
             (ip -details link show type vxlan lists them): delete it",
            settings.vni
        ),
        (Change::CreateOverlay { .. }, Some(libc::EOPNOTSUPP)) => {
            "the kernel has no VXLAN support: load it with modprobe vxlan".to_owned()
        }
        (Change::CreateBridge { .. }, Some(libc::EOPNOTSUPP)) => {
            "the kernel has no bridge support: load it with modprobe bridge".to_owned()
        }
        (_, Some(libc::EPERM | libc::EACCES)) => {
            format!("{error}: this process lacks CAP_NET_ADMIN in this network namespace")
        }
        _ => error.to_string(),
    }
}
