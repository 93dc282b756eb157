//! `mesh.MeshInspect`: what a person asks a node about its network.

use mesh_proto::mesh::{
    ListRoutesRequest, ListRoutesResponse, WantedRoute, mesh_inspect_server::MeshInspect,
};
use tonic::{Request, Response, Status};

use super::{
    ask::ask,
    command::{Command, Commands, RouteView},
};

/// Looking into this node.
#[derive(Clone, Debug)]
pub struct InspectService {
    commands: Commands,
}

impl InspectService {
    pub(crate) fn new(commands: Commands) -> Self {
        Self { commands }
    }
}

fn route(view: RouteView) -> WantedRoute {
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

#[tonic::async_trait]
impl MeshInspect for InspectService {
    async fn list_routes(
        &self,
        _request: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        let views = ask(&self.commands, |reply| Command::ListRoutes { reply }).await?;
        let routes = views.into_iter().map(route).collect();
        Ok(Response::new(ListRoutesResponse { routes }))
    }
}
