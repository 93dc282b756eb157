//! What asking along a way needs of the loop: whom a caller means, what is known of him, sockets in the right network
//! namespace, and what the programs have counted.

use std::{io, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{FastPathSlot, Reconciler};
use crate::{
    api::command::FastPathView,
    desired::fast_path::may_carry,
    probe::{
        OpenProbeSocket,
        path::{
            Ground, OpenSockets,
            ask::FastCounts,
            echo::OpenEcho,
            judge::PeerFacts,
            refusals::Refusals,
            target::{Known, Subject},
            witness::Witness,
        },
    },
    problem::Problem,
    wanted::subnet::gateway,
};

impl Reconciler {
    /// Tells whom `target` means, and opens what he is asked over.
    pub(super) fn path_ground(&self, target: &str) -> Result<Box<Ground>, String> {
        let own = self
            .wanted
            .subnet
            .ok_or("this node has no subnet yet: its agent brings it when it has joined")?;
        let underlay = self.desired.underlay.as_ref();
        let known = Known {
            cluster: self.settings.cluster,
            own,
            host: underlay.map(|it| it.address).or(self.wanted.host_address),
            peers: &self.wanted.peers,
        };
        let subject = known.resolve(target)?;
        let no_endpoint = self.probe_endpoint.get().err().map(|why| why.to_string());
        let sockets = self.open_sockets(&subject, own);
        Ok(Box::new(Ground {
            peer: subject.peer.map(|peer| self.peer_facts(peer)),
            source: match self.probe_endpoint.get() {
                Ok(made) => made.wish.address,
                Err(_) => gateway(own),
            },
            mtu: underlay.map_or(0, |it| it.overlay_mtu),
            no_endpoint,
            sockets,
            subject,
        }))
    }

    /// What the programs have counted of a peer.
    pub(super) fn fast_counts(&self, peer: Ipv4Net) -> FastCounts {
        let FastPathSlot::Open(open) = &self.fast_path else {
            return FastCounts::default();
        };
        match open.fast_path.counters_of(peer) {
            Ok(counters) => counters.map_or_else(FastCounts::default, |it| FastCounts {
                sent: it.stats.tx_packets,
                received: it.stats.rx_packets,
            }),
            Err(error) => {
                tracing::warn!(name: "cannot-read-peer-counters", %error, "cannot read a peer's counters");
                FastCounts::default()
            }
        }
    }

    fn peer_facts(&self, subnet: Ipv4Net) -> PeerFacts {
        let Some(peer) = self.wanted.peers.get(&subnet) else {
            return PeerFacts::default();
        };
        let ready = match self.unready() {
            None => Err(self.why_no_overlay()),
            Some(unready) if unready.contains(&subnet) => Err(self.why_unready(subnet)),
            Some(_) => Ok(()),
        };
        let next_hop = self.observed.next_hops.to(peer.address);
        PeerFacts {
            name: match peer.hostname.as_str() {
                "" => subnet.to_string(),
                name => name.to_owned(),
            },
            host: Some(peer.address),
            unready: ready.err(),
            without_fast_path: self.why_not_fast(subnet),
            vxlan_port: self.wanted.node_settings.vxlan_port,
            interface: next_hop.map_or_else(String::new, |hop| self.observed.name_of(hop.link)),
            mtu: peer.mtu,
        }
    }

    fn why_no_overlay(&self) -> String {
        let overlay = &self.settings.overlay;
        match self.problems.iter().find(|problem| problem.of_device()) {
            Some(problem) => problem.to_string(),
            None => format!("{overlay} is not there, or down"),
        }
    }

    fn why_unready(&self, subnet: Ipv4Net) -> String {
        let problem = self.problems.iter().find(|it| it.of_destination(subnet));
        let outside = self
            .problems
            .iter()
            .find(|it| matches!(it, Problem::NoFirewall(_)));
        match problem.or(outside) {
            Some(problem) => problem.to_string(),
            None => "route, neighbour or forwarding entry are missing at the moment".to_owned(),
        }
    }

    /// Why the programs do not carry what is for a peer.
    fn why_not_fast(&self, subnet: Ipv4Net) -> Option<String> {
        match self.fast_path_view() {
            FastPathView::Off(_) => Some("the runtime was started with --fast-path off".to_owned()),
            FastPathView::Unavailable(reason) | FastPathView::Waiting { reason, .. } => {
                Some(reason)
            }
            FastPathView::Active(_) => (!self.may_be_carried(subnet)).then(|| {
                "an IPsec policy is about it, its way leads over an interface without Ethernet headers, or there is no \
                 way (meshctl status)"
                    .to_owned()
            }),
        }
    }

    /// Whether the programs, which are attached, know a peer and may carry what is for it.
    fn may_be_carried(&self, subnet: Ipv4Net) -> bool {
        let FastPathSlot::Open(open) = &self.fast_path else {
            return false;
        };
        let shown = open
            .shown
            .as_ref()
            .and_then(|state| state.peers.get(&subnet));
        let peer = self.wanted.peers.get(&subnet);
        shown.is_some_and(|path| !path.kernel)
            && peer.is_some_and(|peer| may_carry(&self.settings, &self.observed, peer.address))
    }

    fn open_sockets(&self, subject: &Subject, own: Ipv4Net) -> OpenSockets {
        let said = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "the runtime may not send echo requests (CAP_NET_RAW)".to_owned()
            }
            _ => error.to_string(),
        };
        let container = match self.probe_endpoint.get() {
            Ok(made) => {
                let source = made.wish.address;
                let opened = made.namespace.enter(|| OpenEcho::open(source, None));
                opened.map_err(said)
            }
            Err(why) => Err(format!("this node has no endpoint for probes: {why}")),
        };
        let overlay = self.observed.link_named(&self.settings.overlay);
        let witness = match (&container, overlay, subject.peer) {
            (Ok(socket), Some(overlay), Some(_)) => Witness::of(overlay.index, socket).ok(),
            _ => None,
        };
        let over = match subject.peer {
            Some(_) => &self.settings.overlay,
            None => &self.settings.bridge,
        };
        let host = self.desired.underlay.as_ref().map(|it| it.address);
        let unknown = || "this node's address on the underlay is not known".to_owned();
        let from_host = |open: &dyn Fn(Ipv4Addr) -> io::Result<OpenEcho>| {
            host.ok_or_else(unknown)
                .and_then(|host| open(host).map_err(said))
        };
        OpenSockets {
            container,
            witness,
            kernel: OpenEcho::open(gateway(own), Some(over)).map_err(said),
            host: from_host(&|host| OpenEcho::open(host, None)),
            port: host.ok_or_else(unknown).and_then(|host| {
                OpenProbeSocket::to_port(host, self.wanted.node_settings.vxlan_port).map_err(said)
            }),
            refusals: subject
                .peer
                .and_then(|peer| self.wanted.peers.get(&peer))
                .and_then(|peer| {
                    Refusals::listen(peer.address, self.wanted.node_settings.vxlan_port).ok()
                }),
        }
    }
}
