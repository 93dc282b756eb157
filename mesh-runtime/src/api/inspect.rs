//! `mesh.MeshInspect`: what a person asks a node about its network.

use std::sync::Arc;

use mesh_proto::mesh::{
    CheckFirewallRequest, CheckFirewallResponse, ListRoutesRequest, ListRoutesResponse,
    MonitorRequest, PingRequest, ProbePathRequest, ProbePathResponse, TraceRequest, TraceResponse,
    mesh_inspect_server::MeshInspect,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    ask::ask,
    command::{Command, Commands},
    firewall,
    monitor::{self, MONITORS, Monitored},
    path::{self, PingStream, result_of, unknown},
    routes, trace,
};
use crate::probe::path::run::{self, look_all};

/// Pings at a time.
const PINGS_AT_A_TIME: usize = 4;
/// Calls at a time that ask many ways.
const LOOKS_AT_A_TIME: usize = 2;

/// Looking into this node.
#[derive(Clone, Debug)]
pub struct InspectService {
    commands: Commands,
    monitors: Arc<Semaphore>,
    pings: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    /// Ends those who look.
    ending: CancellationToken,
}

impl InspectService {
    pub(crate) fn new(commands: Commands, ending: CancellationToken) -> Self {
        Self {
            commands,
            monitors: Arc::new(Semaphore::new(MONITORS)),
            pings: Arc::new(Semaphore::new(PINGS_AT_A_TIME)),
            looks: Arc::new(Semaphore::new(LOOKS_AT_A_TIME)),
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

    async fn check_firewall(
        &self,
        _request: Request<CheckFirewallRequest>,
    ) -> Result<Response<CheckFirewallResponse>, Status> {
        let checked = ask(&self.commands, |reply| Command::CheckFirewall { reply }).await?;
        match checked {
            Ok(checked) => Ok(Response::new(firewall::write(checked))),
            Err(refusal) => Err(Status::failed_precondition(refusal.to_string())),
        }
    }

    type PingStream = PingStream;

    async fn ping(
        &self,
        request: Request<PingRequest>,
    ) -> Result<Response<Self::PingStream>, Status> {
        let request = request.into_inner();
        let permit = Arc::clone(&self.pings).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{PINGS_AT_A_TIME} pings are under way: try again when one has ended"
            ))
        })?;
        let mut terms = path::ping_terms(&request)?;
        let asker = run::open(&self.commands, request.target).await?;
        let asker = asker.map_err(Status::not_found)?;
        path::fit(&mut terms, asker.mtu())?;
        Ok(Response::new(PingStream::begin(asker, terms, permit)))
    }

    async fn probe_path(
        &self,
        request: Request<ProbePathRequest>,
    ) -> Result<Response<ProbePathResponse>, Status> {
        let request = request.into_inner();
        let (terms, deadline) = path::look_terms(&request)?;
        let _permit = self.looks.try_acquire().map_err(|_| {
            Status::resource_exhausted(format!(
                "{LOOKS_AT_A_TIME} calls that probe paths are under way: try again when one has ended"
            ))
        })?;
        let results = look_all(&self.commands, request.targets, terms, deadline).await?;
        let results = results.into_iter().map(|(target, result)| match result {
            Ok(result) => result_of(&result),
            Err(reason) => unknown(target, reason),
        });
        Ok(Response::new(ProbePathResponse {
            results: results.collect(),
        }))
    }
}
