//! How a node leaves its mesh for good, and what an agent does on a host that has.

use std::collections::BTreeSet;

use mesh_problems::catalog::maintenance::NODE_LEFT;
use mesh_rest::client::CallError;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Ended, Settings, end_all};
use crate::{
    control_plane::{ControlPlane, ControlPlaneError},
    departure::{self, Departure, Left, Refusal, Wish},
    node::Registered,
    socket,
    status::StatusSources,
};

/// Has the node leave for good, when nothing is done for it any more.
pub(super) async fn leave(
    control_plane: &ControlPlane,
    departure: &Departure,
    registered: &Registered,
    node_key: &str,
) -> Result<Left, Refusal> {
    let node_id = &registered.node_id;
    let told = timeout(departure::DEADLINE, control_plane.leave(node_id, node_key)).await;
    let refused = match told {
        // It was removed already.
        Ok(Ok(()) | Err(ControlPlaneError::Call(CallError::UnknownNode { .. }))) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {:?}", departure::DEADLINE)),
    };
    if let Some(reason) = refused {
        warn!(name: "node-not-left", node_id, reason, "the node has not left; going on as before");
        return Err(Refusal::ControlPlane(reason));
    }
    if let Err(error) = departure.mark(node_id) {
        warn!(name: "node-left-cannot-kept", node_id, %error, "that the node has left cannot be kept; going on as before");
        return Err(Refusal::Disk {
            path: departure.path().to_owned(),
            reason: error.to_string(),
        });
    }
    info!(name: "left-mesh-good", node_id, "left the mesh for good");
    Ok(Left {
        node_id: node_id.clone(),
        subnet: registered.subnet.to_string(),
        before: false,
    })
}

/// The agent of a host that has left: it tells so, until the host is to join again.
pub(super) async fn stay_away(settings: Settings, stop: CancellationToken) -> Ended {
    info!(name: "host-left-mesh-waits-told", "this host has left its mesh, and waits to be told to join again (meshctl leave --undo)");
    settings
        .problems
        .raise(&NODE_LEFT, "an operator has said so (meshctl leave)");
    settings.measured.count(settings.problems.clone());
    let (wishes, mut wished) = departure::wishes();
    // Nothing of these will ever be known.
    let certificate = watch::Sender::new(None);
    let (registration, host_address) = (watch::Sender::new(None), watch::Sender::new(None));
    let (listed, peers) = (watch::Sender::new(None), watch::Sender::new(None));
    let doubtful = watch::Sender::new(BTreeSet::new());
    let socket_stop = CancellationToken::new();
    let mut told = JoinSet::new();
    told.spawn(socket::run(
        settings.socket,
        wishes,
        StatusSources {
            hostname: settings.node.hostname,
            control_plane: settings.control_plane,
            own_certificate: settings.own_certificate,
            certificate: certificate.subscribe(),
            registration: registration.subscribe(),
            host_address: host_address.subscribe(),
            listed: listed.subscribe(),
            peers: peers.subscribe(),
            doubtful: doubtful.subscribe(),
            runtime: settings.dataplane.runtime.place,
            problems: settings.problems,
        },
        socket_stop.clone(),
    ));
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ended::Stopped,
            Some(wish) = wished.recv() => match wish {
                Wish::Leave(answer) => drop(answer.send(Ok(Left {
                    before: true,
                    ..Left::default()
                }))),
                Wish::JoinAgain(answer) => {
                    let joins = settings.departure.unmark().map_err(|error| Refusal::Disk {
                        path: settings.departure.path().to_owned(),
                        reason: error.to_string(),
                    });
                    let is_over = joins.is_ok();
                    drop(answer.send(joins));
                    if is_over {
                        info!(name: "host-joins-again", "this host joins again");
                        break Ended::Anew;
                    }
                }
            },
        }
    };
    socket_stop.cancel();
    end_all(&mut told).await;
    ended
}
