//! `quilt.QuiltRuntime`: the three calls every container runtime serves.

use mesh_proto::quilt::{
    ConfigureNodeSubnetRequest, ConfigureNodeSubnetResponse, InjectRouteRequest,
    InjectRouteResponse, RemoveRouteRequest, RemoveRouteResponse,
    quilt_runtime_server::QuiltRuntime,
};
use tonic::{Request, Response, Status};

use super::{
    ask::ask,
    command::{Command, Commands, Refusal},
};

/// The three calls on this node's kernel.
#[derive(Clone, Debug)]
pub struct QuiltService {
    commands: Commands,
}

impl QuiltService {
    pub(crate) fn new(commands: Commands) -> Self {
        Self { commands }
    }
}

/// A refusal is an answer: gRPC OK, `success = false`, and the reason.
fn answer(result: Result<(), Refusal>) -> (bool, String) {
    match result {
        Ok(()) => (true, String::new()),
        Err(refusal) => (false, refusal.to_string()),
    }
}

#[tonic::async_trait]
impl QuiltRuntime for QuiltService {
    async fn configure_node_subnet(
        &self,
        request: Request<ConfigureNodeSubnetRequest>,
    ) -> Result<Response<ConfigureNodeSubnetResponse>, Status> {
        let ConfigureNodeSubnetRequest { subnet } = request.into_inner();
        let result = ask(&self.commands, |reply| Command::ConfigureSubnet {
            subnet,
            reply,
        })
        .await?;
        let (success, error) = answer(result);
        Ok(Response::new(ConfigureNodeSubnetResponse {
            success,
            error,
        }))
    }

    async fn inject_route(
        &self,
        request: Request<InjectRouteRequest>,
    ) -> Result<Response<InjectRouteResponse>, Status> {
        let InjectRouteRequest {
            destination,
            via_interface: via,
        } = request.into_inner();
        let result = ask(&self.commands, |reply| Command::InjectRoute {
            destination,
            via,
            reply,
        })
        .await?;
        let (success, error) = answer(result);
        Ok(Response::new(InjectRouteResponse { success, error }))
    }

    async fn remove_route(
        &self,
        request: Request<RemoveRouteRequest>,
    ) -> Result<Response<RemoveRouteResponse>, Status> {
        let RemoveRouteRequest { destination } = request.into_inner();
        let result = ask(&self.commands, |reply| Command::RemoveRoute {
            destination,
            reply,
        })
        .await?;
        let (success, error) = answer(result);
        Ok(Response::new(RemoveRouteResponse { success, error }))
    }
}
