//! The routes that are wanted, as they are told.

use mesh_proto::mesh::WantedRoute;

use super::command::RouteView;

/// The message of a route.
pub(super) fn write(view: RouteView) -> WantedRoute {
    let (hostname, host_address) = match view.peer {
        Some(peer) => (peer.hostname, peer.address.to_string()),
        None => Default::default(),
    };
    WantedRoute {
        destination: view.destination.to_string(),
        interface: view.interface,
        gateway: view.destination.network().to_string(),
        hostname,
        host_address,
        mtu: view.mtu.unwrap_or_default(),
        injected: view.injected,
        in_place: view.in_place,
        instead: view.instead,
    }
}
