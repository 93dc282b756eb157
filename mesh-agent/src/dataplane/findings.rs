//! What is wrong with the runtime, as the passes over it found.

use std::fmt;

use ipnet::Ipv4Net;
use mesh_problems::{
    Kind,
    catalog::agent::{
        PEERS_REFUSED, PEERS_REJECTED, ROUTES_MISSING, ROUTES_NOT_REMOVED, RUNTIME_BY_LOOPBACK,
        RUNTIME_LOST, SETTINGS_NOT_FOLLOWED, SUBNET_REFUSED, THREE_CALL_RUNTIME,
    },
};

use super::{Dataplane, FastPath, Subject};

impl Subject {
    /// Which problem it is that this fails, and what of: of one thing there is only one.
    fn problem(&self) -> (&'static Kind, Option<Ipv4Net>) {
        match self {
            Self::Runtime => (&RUNTIME_LOST, None),
            Self::Overlay => (&SETTINGS_NOT_FOLLOWED, None),
            Self::OwnSubnet => (&SUBNET_REFUSED, None),
            Self::PeerSet => (&PEERS_REFUSED, None),
            Self::Peer(subnet) => (&PEERS_REJECTED, Some(*subnet)),
            Self::Route(destination) => (&ROUTES_MISSING, Some(*destination)),
            Self::KeptRoute(destination) => (&ROUTES_NOT_REMOVED, Some(*destination)),
        }
    }
}

/// Those of [`Subject`].
const KINDS: [&Kind; 7] = [
    &RUNTIME_LOST,
    &SETTINGS_NOT_FOLLOWED,
    &SUBNET_REFUSED,
    &PEERS_REFUSED,
    &PEERS_REJECTED,
    &ROUTES_MISSING,
    &ROUTES_NOT_REMOVED,
];

impl Dataplane {
    /// Has what is known to fail after a pass be what is said to.
    pub(super) fn show_findings(&self) {
        for kind in KINDS {
            let failing = self.reasons.iter().filter_map(|(subject, reason)| {
                let (of, what) = subject.problem();
                (of == kind).then_some((what, reason))
            });
            let failing = failing.map(|(what, reason)| {
                fmt::from_fn(move |f| match what {
                    Some(what) => write!(f, "{what}: {reason}"),
                    None => f.write_str(reason),
                })
            });
            self.problems.set(kind, failing);
        }
        match self.fast_path {
            FastPath::Missing { .. } => {
                let observed = "it does not know mesh.MeshDataplane";
                self.problems.raise(&THREE_CALL_RUNTIME, observed);
            }
            FastPath::Served => self.problems.clear(&THREE_CALL_RUNTIME),
            // A runtime that is there, and is not asked.
            FastPath::Untried if self.reasons.of(&Subject::Overlay).is_some() => {
                self.problems.clear(&THREE_CALL_RUNTIME);
            }
            FastPath::Untried => {}
        }
    }

    /// Says how the runtime was reached, if that is not as it should be.
    pub(super) fn show_way(&self) {
        match self.settings.runtime.place.closed_socket() {
            Some(observed) => self.problems.raise(&RUNTIME_BY_LOOPBACK, observed),
            None => self.problems.clear(&RUNTIME_BY_LOOPBACK),
        }
    }

    /// Forgets what was found about peers and routes: the runtime is not told of them any more.
    pub(super) fn forget_peers(&mut self) {
        self.reasons.retain(|subject| {
            matches!(
                subject,
                Subject::Runtime | Subject::Overlay | Subject::OwnSubnet
            )
        });
    }

    /// Forgets what was found about the peers as a set: the runtime has no call for it any more.
    pub(super) fn forget_peer_set(&mut self) {
        self.reasons
            .retain(|subject| !matches!(subject, Subject::PeerSet | Subject::Peer(_)));
    }
}
