//! How the agent fares, for whoever asks on its host.
//!
//! Everything here may be known to every user of the host. So nothing is told that lets somebody pass for the node or for
//! an operator: no key, no join token, no token of the host, and of certificates only what they say.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use mesh_proto::mesh::{
    AgentStatus, CertificateStatus, ControlPlaneStatus, NodeListStatus, PeerCounts,
};
use tokio::{sync::watch, time::Instant};

use crate::{
    control_plane::ControlPlane,
    credentials::{Credentials, own::OwnIdentity},
    feed::Listed,
    node::Registered,
    peers::PeerSet,
    problems::Problems,
    runtime_place::RuntimePlace,
};

/// What a certificate that joining gave says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshCertificate {
    /// The id of the mesh.
    pub mesh_id: String,
    /// When it expires, in Unix seconds.
    pub not_after: i64,
    /// When it is made anew, in Unix seconds.
    pub renewal_at: i64,
    /// The beginning of the key digest of each authority that is trusted.
    pub authorities: Vec<String>,
}

impl MeshCertificate {
    /// Of these credentials, which are made anew then, in Unix seconds.
    #[must_use]
    pub fn of(credentials: &Credentials, renewal_at: i64) -> Self {
        let authorities = credentials.trust.iter();
        Self {
            mesh_id: credentials.trust.mesh().to_string(),
            not_after: credentials.presented.not_after,
            renewal_at,
            authorities: authorities.map(|it| it.key().short()).collect(),
        }
    }
}

/// Where what is told comes from. The tasks keep it up to date; here it is looked at only when somebody asks.
#[derive(Debug, Clone)]
pub struct StatusSources {
    /// The node's name.
    pub hostname: String,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// A certificate that the operator keeps.
    pub own_certificate: Option<Arc<OwnIdentity>>,
    /// The one that joining gave.
    pub certificate: watch::Receiver<Option<MeshCertificate>>,
    /// The node as registered.
    pub registration: watch::Receiver<Option<Registered>>,
    /// The node's address on the underlay.
    pub host_address: watch::Receiver<Option<Ipv4Addr>>,
    /// The node list.
    pub listed: watch::Receiver<Option<Listed>>,
    /// The peers.
    pub peers: watch::Receiver<Option<Arc<PeerSet>>>,
    /// Those that the control plane does not call up.
    pub doubtful: watch::Receiver<BTreeSet<Ipv4Net>>,
    /// Where the runtime is.
    pub runtime: RuntimePlace,
    /// What is wrong.
    pub problems: Problems,
}

impl StatusSources {
    /// How the agent fares now. Nobody is asked for it.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        let now = Instant::now();
        if let Some(own) = &self.own_certificate {
            own.look_again();
        }
        let registration = self.registration.borrow().clone();
        let host_address = *self.host_address.borrow();
        let findings = self.problems.findings();
        let mesh = self.certificate.borrow().clone();
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.hostname.clone(),
            node_id: registration
                .as_ref()
                .map_or_else(String::new, |it| it.node_id.clone()),
            subnet: registration.map_or_else(String::new, |it| it.subnet.to_string()),
            host_address: host_address.map_or_else(String::new, |it| it.to_string()),
            control_plane: Some(self.control_plane(now)),
            node_list: self.listed.borrow().as_ref().map(|it| node_list(it, now)),
            peers: self
                .peers
                .borrow()
                .as_deref()
                .map(|peers| counts(peers, &self.doubtful.borrow())),
            runtime: self.runtime.reached_by().unwrap_or_default(),
            mesh_id: mesh
                .as_ref()
                .map_or_else(String::new, |it| it.mesh_id.clone()),
            certificate: Some(certificate(mesh, self.own_certificate.as_deref())),
            findings: findings.into_iter().map(Into::into).collect(),
        }
    }

    fn control_plane(&self, now: Instant) -> ControlPlaneStatus {
        let (urls, used) = self.control_plane.replicas();
        let contact = self.control_plane.contact();
        ControlPlaneStatus {
            urls: urls.iter().map(ToString::to_string).collect(),
            used: countable(used),
            connected: contact.connected,
            heard_ms_ago: contact
                .heard
                .map(|heard| milliseconds(now.saturating_duration_since(heard))),
            insecure: self.control_plane.heard().borrow().insecure.clone(),
        }
    }
}

fn node_list(listed: &Listed, now: Instant) -> NodeListStatus {
    NodeListStatus {
        revision: listed.revision,
        age_ms: milliseconds(now.saturating_duration_since(listed.at)),
        nodes: countable(listed.nodes.len()),
    }
}

/// Each peer is counted once. Those in doubt may be others by now than when the peers were told: both are told one after
/// the other.
fn counts(peers: &PeerSet, doubtful: &BTreeSet<Ipv4Net>) -> PeerCounts {
    let mut counts = PeerCounts::default();
    for (subnet, peer) in peers {
        let count = match (peer.suspect, doubtful.contains(subnet)) {
            (true, _) => &mut counts.suspect,
            (false, true) => &mut counts.in_doubt,
            (false, false) => &mut counts.confirmed,
        };
        *count += 1;
    }
    counts
}

fn certificate(mesh: Option<MeshCertificate>, own: Option<&OwnIdentity>) -> CertificateStatus {
    if let Some(mesh) = mesh {
        return CertificateStatus {
            source: "mesh".to_owned(),
            not_after: mesh.not_after,
            renewal_at: mesh.renewal_at,
            authorities: mesh.authorities,
        };
    }
    let source = if own.is_some() { "own" } else { "none" };
    CertificateStatus {
        source: source.to_owned(),
        not_after: own.and_then(OwnIdentity::not_after).unwrap_or_default(),
        ..CertificateStatus::default()
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn countable(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{Peer, WantedPeer};

    #[test]
    fn every_peer_is_counted_once_by_how_sure_it_is() {
        let peer = |n: u8, suspect| {
            let subnet = Ipv4Net::new_assert([10, 42, n, 0].into(), 24);
            let peer = Peer {
                host_address: [192, 0, 2, n].into(),
                hostname: String::new(),
                mtu: None,
            };
            (subnet, WantedPeer { peer, suspect })
        };
        let peers: PeerSet = [
            peer(1, false),
            peer(2, false),
            peer(3, false),
            peer(4, true),
        ]
        .into();
        let gone = Ipv4Net::new_assert([10, 42, 9, 0].into(), 24);
        let doubtful = [3, 4].map(|n| Ipv4Net::new_assert([10, 42, n, 0].into(), 24));
        let doubtful = doubtful.into_iter().chain([gone]).collect();
        let expected = PeerCounts {
            confirmed: 2,
            in_doubt: 1,
            suspect: 1,
        };
        assert_eq!(counts(&peers, &doubtful), expected);
    }
}
