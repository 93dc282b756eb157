//! The calls that only look.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::{Reconciler, fast_path::FastPathSlot};
use crate::{
    api::command::{EndpointView, FastPathView, PeerList, PeerShown, RouteView, Status},
    desired::{entries::describe, fast_path::may_carry},
    diff::{change::DisplayMac, missing},
    observed::{LinkKind, dirty::Dirty},
    probe_endpoint,
};

impl Reconciler {
    /// Makes a round and reads what it left, so that the answer is the kernel's.
    pub(super) async fn look(&mut self) {
        self.round(Dirty::default()).await;
        if !self.outdated.is_clean()
            && let Err(error) = self.read(Dirty::default()).await
        {
            tracing::debug!(name: "cannot-read-kernel-state-again", %error, "cannot read the kernel's state again");
        }
    }

    pub(super) fn list_peers(&self) -> PeerList {
        let unready = self.unready();
        let (counters, shown) = match &self.fast_path {
            FastPathSlot::Open(open) => {
                let counters = open.fast_path.peer_counters().unwrap_or_else(|error| {
                    tracing::warn!(name: "cannot-read-peers-counters", %error, "cannot read the peers' counters");
                    Default::default()
                });
                let carries =
                    self.settings.forwarding && open.is_attached() && open.refused().is_none();
                let shown = open.shown.as_ref().filter(|_| carries);
                (counters, shown)
            }
            _ => Default::default(),
        };
        let peers = self
            .wanted
            .peers
            .iter()
            .map(|(subnet, peer)| {
                let shown = PeerShown {
                    counters: counters.get(subnet).copied().unwrap_or_default(),
                    kernel_path_ready: unready
                        .as_ref()
                        .is_some_and(|unready| !unready.contains(subnet)),
                    fast_path_ready: counters.contains_key(subnet)
                        && shown
                            .and_then(|state| state.peers.get(subnet))
                            .is_some_and(|path| !path.kernel)
                        && may_carry(&self.settings, &self.observed, peer.address),
                };
                (*subnet, (peer.clone(), shown))
            })
            .collect();
        PeerList {
            generation: self.wanted.generation,
            peers,
        }
    }

    pub(super) fn list_routes(&self) -> Vec<RouteView> {
        let unready = self.unready();
        let view = |destination: Ipv4Net| {
            let route = self.desired.entries.routes.get(&destination);
            let shown = self.observed.routes.to(destination);
            let foreign = shown.iter().find(|route| !route.is_ours());
            RouteView {
                destination,
                interface: self.settings.overlay.clone(),
                peer: self.wanted.peers.get(&destination).cloned(),
                mtu: route.and_then(|route| route.mtu),
                injected: self.wanted.injected.contains(&destination),
                in_place: unready
                    .as_ref()
                    .is_some_and(|unready| !unready.contains(&destination)),
                instead: foreign
                    .map(|route| describe(route, &self.observed))
                    .unwrap_or_default(),
            }
        };
        self.wanted.destinations().into_iter().map(view).collect()
    }

    /// Peers whose entries the kernel does not show; `None` if it shows no overlay device.
    pub(super) fn unready(&self) -> Option<BTreeSet<Ipv4Net>> {
        self.observed
            .link_named(&self.settings.overlay)
            .filter(|link| link.up && matches!(link.kind, LinkKind::Vxlan(_)))?;
        let kept_out = self
            .wanted
            .peers
            .iter()
            .filter(|(_, peer)| self.firewall.keeps_out(peer.address))
            .map(|(&subnet, _)| subnet);
        let mut unready = missing(&self.settings, &self.desired, &self.observed);
        unready.extend(kept_out);
        Some(unready)
    }

    pub(super) fn status(&self) -> Status {
        let overlay = self.observed.link_named(&self.settings.overlay);
        let underlay = self.desired.underlay.as_ref();
        Status {
            subnet: self.wanted.subnet,
            host_address: underlay
                .map(|underlay| underlay.address)
                .or(self.wanted.host_address),
            underlay_interface: underlay.map_or_else(String::new, |it| it.interface.clone()),
            overlay_mtu: overlay.map_or(0, |link| link.mtu),
            node_settings: self.wanted.node_settings,
            generation: self.wanted.generation,
            peers: self.wanted.peers.len(),
            suspect_peers: self
                .wanted
                .peers
                .values()
                .filter(|peer| peer.suspect)
                .count(),
            routes: self
                .observed
                .routes
                .iter()
                .filter(|route| route.is_ours())
                .count(),
            fast_path: self.fast_path_view(),
            endpoints: self.endpoint_views(),
            probe_endpoint: self.shown_probe_endpoint(),
            findings: self.standing.findings(),
        }
    }

    pub(super) fn fast_path_view(&self) -> FastPathView {
        if !self.settings.forwarding {
            let report = match &self.fast_path {
                FastPathSlot::Open(open) => open.fast_path.report().ok(),
                _ => None,
            };
            return FastPathView::Off(report.map(Box::new));
        }
        let open = match &self.fast_path {
            FastPathSlot::Open(open) => open,
            FastPathSlot::Unavailable(reason) => return FastPathView::Unavailable(reason.clone()),
            FastPathSlot::Unopened | FastPathSlot::Opening(_) => {
                return FastPathView::Waiting {
                    reason: "the programs are being loaded".to_owned(),
                    report: None,
                };
            }
        };
        if let Some(reason) = open.refused() {
            return FastPathView::Unavailable(reason.to_owned());
        }
        let report = match open.fast_path.report() {
            Ok(report) => Box::new(report),
            Err(error) => return FastPathView::Unavailable(error.to_string()),
        };
        if open.is_attached() {
            return FastPathView::Active(report);
        }
        let reason = if open.shown.is_some() {
            "the programs are being attached"
        } else if self.wanted.subnet.is_none() {
            "this node has no subnet yet"
        } else if self.desired.underlay.is_none() {
            "this node's underlay address is not known, or on no interface"
        } else {
            "bridge or overlay interface are not there"
        };
        FastPathView::Waiting {
            reason: reason.to_owned(),
            report: Some(report),
        }
    }

    pub(super) fn endpoint_views(&self) -> Vec<EndpointView> {
        let endpoints = self.desired.containers.endpoints.iter();
        let probes = self.observed.link_named(probe_endpoint::NAME);
        let probes = probes.filter(|link| probe_endpoint::is_ours(link));
        endpoints
            // Nobody's container.
            .filter(|(_, path)| probes.is_none_or(|link| link.index != path.link))
            .map(|(&address, path)| EndpointView {
                address,
                mac: DisplayMac(path.mac).to_string(),
                interface: self.observed.name_of(path.link),
                shaped: self.observed.shaping.shaped.contains(&path.link),
            })
            .collect()
    }
}
