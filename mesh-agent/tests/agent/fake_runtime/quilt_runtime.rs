//! The three calls.

use mesh_proto::quilt::{
    ConfigureNodeSubnetRequest, ConfigureNodeSubnetResponse, InjectRouteRequest,
    InjectRouteResponse, RemoveRouteRequest, RemoveRouteResponse,
    quilt_runtime_server::QuiltRuntime,
};
use tonic::{Request, Response, Status};

use super::{Call, Service};

#[tonic::async_trait]
impl QuiltRuntime for Service {
    async fn configure_node_subnet(
        &self,
        request: Request<ConfigureNodeSubnetRequest>,
    ) -> Result<Response<ConfigureNodeSubnetResponse>, Status> {
        let subnet = request.into_inner().subnet;
        self.record(Call::Configure(subnet.clone())).await;
        let mut state = self.0.lock().unwrap();
        let success = !state.refuse_subnets.contains(&subnet);
        if success {
            state.subnet = subnet;
        }
        let error = if success { "" } else { "addresses in use" }.to_owned();
        Ok(Response::new(ConfigureNodeSubnetResponse {
            success,
            error,
        }))
    }

    async fn inject_route(
        &self,
        request: Request<InjectRouteRequest>,
    ) -> Result<Response<InjectRouteResponse>, Status> {
        let request = request.into_inner();
        let destination = request.destination.clone();
        self.record(Call::Inject(request.destination, request.via_interface))
            .await;
        let mut state = self.0.lock().unwrap();
        let success = !state.refuse_routes.contains(&destination);
        if success {
            if state.serves_sync && !state.peers.contains(&destination) {
                let violation = format!("route to {destination} before its peer");
                state.violations.push(violation);
            }
            state.injected.insert(destination.clone());
            state.routes.insert(destination);
        }
        let error = if success { "" } else { "foreign route" }.to_owned();
        Ok(Response::new(InjectRouteResponse { success, error }))
    }

    async fn remove_route(
        &self,
        request: Request<RemoveRouteRequest>,
    ) -> Result<Response<RemoveRouteResponse>, Status> {
        let destination = request.into_inner().destination;
        self.record(Call::Remove(destination.clone())).await;
        let mut state = self.0.lock().unwrap();
        if state.keep_routes {
            return Ok(Response::new(RemoveRouteResponse {
                success: false,
                error: "busy".to_owned(),
            }));
        }
        state.injected.remove(&destination);
        state.routes.remove(&destination);
        Ok(Response::new(RemoveRouteResponse {
            success: true,
            error: String::new(),
        }))
    }
}
