//! A kernel for the tests of the plan: what each change does to the observed state.
//!
//! What it is taught here, the tests in `tests/kernel` anchor on the real one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::Ipv4Net;

use super::change::Change;
use crate::{
    desired::{entries::OverlayRoute, holders::Holders},
    headroom::{self, HeadroomChange},
    observed::{
        Address, Forwarding, Link, LinkKind, Observed, Route, Routes, Vxlan, shaping::Shaping,
    },
    settings::{Device, Settings},
};

/// A kernel that only has state.
pub(crate) struct ModelKernel<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) state: Observed,
}

impl ModelKernel<'_> {
    /// Makes a change, or says why the real kernel would refuse it.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::EnableForwarding => self.state.ip_forward = true,
            Change::DeleteDevice(device) => self.delete(*device)?,
            Change::CreateBridge { mac } => {
                self.create(Device::Bridge, LinkKind::Bridge, *mac, 1500)?;
            }
            Change::CreateOverlay {
                mac,
                mtu,
                local,
                settings,
            } => {
                let taken =
                    |link: &Link| matches!(&link.kind, LinkKind::Vxlan(it) if settings.are_of(it));
                if self.state.links.values().any(taken) {
                    return Err("EEXIST: VNI and port".to_owned());
                }
                let vxlan = Vxlan {
                    vni: settings.vni,
                    port: settings.vxlan_port,
                    local: Some(*local),
                    ..Vxlan::default()
                };
                self.create(Device::Overlay, LinkKind::Vxlan(vxlan), *mac, *mtu)?;
            }
            Change::SetMac(device, mac) => self.link(*device)?.mac = Some(*mac),
            Change::SetMtu(device, mtu) => self.link(*device)?.mtu = *mtu,
            Change::SetSettings(device) => {
                self.link(*device)?;
                self.state.unsettled.remove(device);
            }
            Change::SetUp(device) => self.link(*device)?.up = true,
            Change::SetLocal(local) => match &mut self.link(Device::Overlay)?.kind {
                LinkKind::Vxlan(vxlan) if vxlan.local.is_some() => vxlan.local = Some(*local),
                other => return Err(format!("EOPNOTSUPP: local of {other:?}")),
            },
            Change::Enslave { port } => {
                let bridge = self.link(Device::Bridge)?.index;
                if let Some(port) = self.state.links.get_mut(port) {
                    port.master = Some(bridge);
                }
            }
            Change::AddAddress(address) => {
                let link = self.link(Device::Bridge)?.index;
                self.state.addresses.push(Address {
                    link,
                    address: *address,
                    global: true,
                });
            }
            Change::RemoveAddress(address) => {
                let link = self.link(Device::Bridge)?.index;
                self.state
                    .addresses
                    .retain(|held| held.link != link || held.address != *address);
                // The kernel drops its own route for the address, and all that prefer it
                // as their source.
                Arc::make_mut(&mut self.state.routes).retain(|route| {
                    route.source != Some(address.addr())
                        && !(route.link == Some(link)
                            && route.protocol == 2
                            && route.destination == address.trunc())
                });
            }
            Change::AddRoute(goal) => {
                if self.first_route(goal.destination, 0).is_some() {
                    return Err("EEXIST: route".to_owned());
                }
                self.check_route(goal)?;
                self.change_entry(change)?;
            }
            Change::ReplaceRoute(goal) => {
                let first = self.first_route(goal.destination, 0);
                if first.is_some_and(|route| !route.is_ours()) {
                    return Err("a foreign route was replaced".to_owned());
                }
                self.check_route(goal)?;
                self.change_entry(change)?;
            }
            Change::Headroom(change) => self.change_headroom(*change)?,
            // The overlay may be gone along with its routes, and these are the bridge's.
            Change::RemoveRoute { .. }
            | Change::PinContainer { .. }
            | Change::GiveBack { .. }
            | Change::UnpinContainer { .. } => self.state.note(0, change),
            _ => self.change_entry(change)?,
        }
        Ok(())
    }

    fn link(&mut self, device: Device) -> Result<&mut Link, String> {
        let name = self.settings.name(device).to_owned();
        self.state
            .links
            .values_mut()
            .find(|link| link.name == name)
            .ok_or_else(|| format!("ENODEV: {name}"))
    }

    fn create(
        &mut self,
        device: Device,
        kind: LinkKind,
        mac: crate::ebpf::Mac,
        mtu: u32,
    ) -> Result<(), String> {
        if self.link(device).is_ok() {
            return Err(format!("EEXIST: {device}"));
        }
        let index = self.state.links.keys().max().map_or(1, |last| last + 1);
        let link = Link {
            index,
            name: self.settings.name(device).to_owned(),
            kind,
            mac: Some(mac),
            mtu,
            up: false,
            master: None,
            far_end: None,
            filters_vlans: false,
            near_end: None,
            hairpin: false,
        };
        self.state.links.insert(index, link);
        Ok(())
    }

    fn change_headroom(&mut self, change: HeadroomChange) -> Result<(), String> {
        let bridge = self.link(Device::Bridge)?.index;
        if let HeadroomChange::Create { mtu } = change {
            if self.state.link_named(headroom::NAME).is_some() {
                return Err(format!("EEXIST: {}", headroom::NAME));
            }
            let index = self.state.links.keys().max().map_or(1, |last| last + 1);
            let vxlan = Vxlan {
                vni: headroom::VNI,
                ..Vxlan::default()
            };
            let link = Link {
                index,
                name: headroom::NAME.to_owned(),
                kind: LinkKind::Vxlan(vxlan),
                mac: Some(headroom::MAC),
                mtu,
                up: false,
                master: Some(bridge),
                far_end: None,
                filters_vlans: false,
                near_end: None,
                hairpin: false,
            };
            self.state.links.insert(index, link);
            return Ok(());
        }
        let link = self
            .state
            .links
            .values_mut()
            .find(|link| link.name == headroom::NAME)
            .ok_or_else(|| format!("ENODEV: {}", headroom::NAME))?;
        match change {
            HeadroomChange::Join => link.master = Some(bridge),
            HeadroomChange::SetMtu(mtu) => link.mtu = mtu,
            HeadroomChange::SetDown => link.up = false,
            HeadroomChange::Create { .. } | HeadroomChange::Delete { .. } => {
                return Err(format!("not part of a plan: {change}"));
            }
        }
        Ok(())
    }

    fn delete(&mut self, device: Device) -> Result<(), String> {
        let index = self.link(device)?.index;
        self.state.links.remove(&index);
        self.state.addresses.retain(|it| it.link != index);
        Arc::make_mut(&mut self.state.routes).retain(|it| it.link != Some(index));
        self.state.neighbours.retain(|it| it.link != index);
        let left = |it: &Forwarding| it.link != index && it.bridge != Some(index);
        self.state.forwarding.retain(left);
        if device == Device::Overlay {
            self.state.overlay = Arc::default();
        }
        Ok(())
    }

    /// The route that the kernel compares a new one with.
    fn first_route(&self, destination: Ipv4Net, metric: u32) -> Option<&Route> {
        let same = |route: &&Route| route.destination == destination && route.metric == metric;
        self.state.routes.iter().find(same)
    }

    fn check_route(&mut self, goal: &OverlayRoute) -> Result<(), String> {
        if !self.link(Device::Overlay)?.up {
            return Err("ENETDOWN: overlay".to_owned());
        }
        let local = |held: &Address| held.address.addr() == goal.source;
        if !self.state.addresses.iter().any(local) {
            return Err(format!("EINVAL: {} is no local address", goal.source));
        }
        Ok(())
    }

    fn change_entry(&mut self, change: &Change) -> Result<(), String> {
        let overlay = self.link(Device::Overlay)?.index;
        self.state.note(overlay, change);
        Ok(())
    }
}

/// Everything in a state that is not this project's, to see that nobody touched it.
pub(crate) fn foreign(settings: &Settings, state: &Observed) -> Observed {
    let ours: BTreeMap<u32, &Link> = state
        .links
        .iter()
        .filter(|(_, link)| {
            link.name == settings.bridge || link.name == settings.overlay || headroom::is_ours(link)
        })
        .map(|(&index, link)| (index, link))
        .collect();
    let elsewhere = |link: &u32| !ours.contains_key(link);
    let is_pin = |entry: &Forwarding| {
        let port = state.links.get(&entry.link);
        entry.sticky && port.is_some_and(|port| port.kind == LinkKind::Veth)
    };
    Observed {
        links: state
            .links
            .iter()
            .filter(|(index, _)| elsewhere(index))
            .map(|(&index, link)| (index, link.clone()))
            .collect(),
        addresses: state
            .addresses
            .iter()
            .filter(|it| elsewhere(&it.link))
            .copied()
            .collect(),
        routes: state
            .routes
            .iter()
            .filter(|route| {
                let inside = settings.cluster.cidr.contains(&route.destination);
                let of_device = route.link.is_some_and(|link| !elsewhere(&link));
                // The kernel drops a route along with the address it prefers as its source,
                // whoever made it.
                let by_our_address = route.source.is_some();
                !(of_device || by_our_address || route.is_ours() && inside)
            })
            .cloned()
            .collect::<Routes>()
            .into(),
        neighbours: Vec::new(),
        forwarding: state
            .forwarding
            .iter()
            .filter(|it| elsewhere(&it.link) && !is_pin(it))
            .copied()
            .collect(),
        overlay: Arc::default(),
        next_hops: Arc::default(),
        asked_about: Default::default(),
        shaping: Shaping::default(),
        new_ports: BTreeSet::new(),
        awaiting_programs: BTreeSet::new(),
        by_filters: false,
        policies: Default::default(),
        multipath: Default::default(),
        diversion: None,
        containers: BTreeMap::new(),
        holders: Holders::default(),
        unsettled: BTreeSet::new(),
        ip_forward: false,
        has_programs: false,
        bridge_has_program: false,
    }
}
