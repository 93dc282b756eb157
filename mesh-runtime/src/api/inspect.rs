//! `mesh.MeshInspect`: what a person asks a node about its network.

use std::sync::Arc;

use mesh_proto::mesh::{
    ListRoutesRequest, ListRoutesResponse, MonitorRequest, TraceRequest, TraceResponse,
    mesh_inspect_server::MeshInspect,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    ask::ask,
    command::{Command, Commands},
    monitor::{self, MONITORS, Monitored},
    routes, trace,
};

/// Looking into this node.
#[derive(Clone, Debug)]
pub struct InspectService {
    commands: Commands,
    monitors: Arc<Semaphore>,
    /// Ends those who look.
    ending: CancellationToken,
}

impl InspectService {
    pub(crate) fn new(commands: Commands, ending: CancellationToken) -> Self {
        Self {
            commands,
            monitors: Arc::new(Semaphore::new(MONITORS)),
            ending,
        }
    }
}

#[tonic::async_trait]
impl MeshInspect for InspectService {
    type MonitorStream = Monitored;

    async fn monitor(
        &self,
        request: Request<MonitorRequest>,
    ) -> Result<Response<Self::MonitorStream>, Status> {
        let permit = Arc::clone(&self.monitors).try_acquire_owned();
        let permit = permit.map_err(|_| {
            Status::resource_exhausted(format!(
                "{MONITORS} look already: end one of them (meshctl monitor) first"
            ))
        })?;
        let while_served = (permit, self.ending.clone());
        let monitored = monitor::begin(&self.commands, request.into_inner(), while_served).await?;
        Ok(Response::new(monitored))
    }

    async fn trace(
        &self,
        request: Request<TraceRequest>,
    ) -> Result<Response<TraceResponse>, Status> {
        let question = trace::read(request.get_ref());
        let question = question.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let traced = ask(&self.commands, |reply| Command::Trace { question, reply }).await?;
        match traced {
            Ok(traced) => Ok(Response::new(trace::write(traced))),
            Err(refusal) => Err(Status::failed_precondition(refusal.to_string())),
        }
    }

    async fn list_routes(
        &self,
        _request: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        let views = ask(&self.commands, |reply| Command::ListRoutes { reply }).await?;
        let routes = views.into_iter().map(routes::write).collect();
        Ok(Response::new(ListRoutesResponse { routes }))
    }
}
