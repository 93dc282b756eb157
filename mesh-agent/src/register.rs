//! The registrar: the one task that registers the node.

use std::{net::Ipv4Addr, time::Duration};

use mesh_problems::catalog::agent::NOT_REGISTERED;
use mesh_rest::{overlay::Overlay, registration::Registration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    control_plane::{ControlPlane, Lease},
    held_subnet::held,
    node::{NodeDescription, Registered},
    problems::Problems,
    reasons::Reasons,
    retry,
    runtime_client::RuntimeAddress,
};

/// Time between two registrations at least: a control plane that registers a node and then
/// does not list it would otherwise be asked as fast as it answers.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Tells the registrar that a registration no longer holds. Heartbeat and sync may find
/// that out both, and late: only a claim about the *current* registration counts.
#[derive(Debug, Clone)]
pub struct Revocation {
    void_up_to: watch::Sender<u64>,
}

impl Revocation {
    /// Nothing is revoked yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            void_up_to: watch::Sender::new(0),
        }
    }

    /// The control plane does not know the registration with this epoch.
    pub fn revoke(&self, epoch: u64) {
        self.void_up_to.send_if_modified(|void_up_to| {
            let news = epoch > *void_up_to;
            *void_up_to = epoch.max(*void_up_to);
            news
        });
    }

    async fn of(&self, epoch: u64) {
        let mut void_up_to = self.void_up_to.subscribe();
        // An error means that all senders are gone, and `self` is one.
        let _never = void_up_to.wait_for(|void| *void >= epoch).await;
    }
}

impl Default for Revocation {
    fn default() -> Self {
        Self::new()
    }
}

/// What the answers to registrations say.
#[derive(Debug)]
pub struct Results {
    /// The node as registered.
    pub registration: watch::Sender<Option<Registered>>,
    /// What all nodes have in common.
    pub overlay: watch::Sender<Overlay>,
    /// What is wrong.
    pub problems: Problems,
}

/// Notes what the control plane told last that all nodes have in common.
pub fn note(overlay: &watch::Sender<Overlay>, told: Overlay) {
    let changed = overlay.send_if_modified(|current| {
        let changed = *current != told;
        *current = told;
        changed
    });
    if changed {
        info!(name: "control-plane-tells-other-settings",
            vxlan_port = told.vxlan_port,
            vni = told.vni,
            "the control plane tells other settings of the overlay"
        );
    }
}

/// Registers as soon as the node's address is known, and again each time the registration is revoked or
/// the address changes, until `stop`. Published registrations count up from epoch 1. Each says which subnet the
/// node holds: the runtime's, or else that of the registration before.
pub async fn run(
    control_plane: ControlPlane,
    runtime: RuntimeAddress,
    node: NodeDescription,
    mut host_address: watch::Receiver<Option<Ipv4Addr>>,
    revocation: Revocation,
    results: Results,
    stop: CancellationToken,
) {
    let mut epoch = 0;
    loop {
        let host_ip = *host_address.borrow_and_update();
        let Some(host_ip) = host_ip else {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = host_address.changed() => if changed.is_err() { return },
            }
            continue;
        };
        let before = results.registration.borrow().as_ref().map(|r| r.subnet);
        let node = node.at(host_ip, before);
        let lease = tokio::select! {
            () = stop.cancelled() => return,
            lease = register(&control_plane, &runtime, &node, &results.problems) => lease,
            changed = host_address.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        results.problems.clear(&NOT_REGISTERED);
        let registered = Instant::now();
        epoch += 1;
        info!(name: "registered", node_id = lease.node_id, subnet = %lease.subnet, %host_ip, "registered");
        if let Some(before) = before.filter(|before| *before != lease.subnet) {
            warn!(name: "another-subnet-leased",
                %before, now = %lease.subnet,
                "the control plane leased another subnet to this node; containers with \
                 addresses of the old one cannot be reached until they are recreated"
            );
        }
        note(&results.overlay, lease.overlay);
        results.registration.send_replace(Some(Registered {
            epoch,
            node_id: lease.node_id,
            subnet: lease.subnet,
            heartbeat_interval: lease.heartbeat_interval,
        }));
        tokio::select! {
            () = stop.cancelled() => return,
            () = revocation.of(epoch) => info!(name: "registering-again", "registering again"),
            changed = host_address.changed() => match changed {
                Ok(()) => info!(name: "registering-again-new-address", "registering again, with the new address"),
                Err(_) => return,
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(registered + SHORTEST_INTERVAL) => {}
        }
    }
}

/// Repeats until it succeeds; each changed error is one log line.
async fn register(
    control_plane: &ControlPlane,
    runtime: &RuntimeAddress,
    node: &Registration,
    problems: &Problems,
) -> Lease {
    let mut pauses = backon::BackoffBuilder::build(retry::until_registered());
    let mut reasons = Reasons::default();
    loop {
        control_plane.admitted().await;
        let mut node = node.clone();
        // Each time: the runtime may have started in the meantime.
        let held = held(runtime).await;
        node.subnet = held.subnet.or(node.subnet);
        node.overlay_mtu = held.overlay_mtu;
        let error = match control_plane.register(&node).await {
            Ok(lease) => return lease,
            Err(error) => error.to_string(),
        };
        if reasons.note((), &error) {
            warn!(name: "cannot-register",
                code = NOT_REGISTERED.code,
                error, "cannot register; trying again until it succeeds"
            );
            problems.raise(&NOT_REGISTERED, error);
        }
        sleep(pauses.next().unwrap_or(retry::LONGEST_REGISTER_PAUSE)).await;
    }
}
