//! `mesh.MeshInspect`: what a person asks a node about its network.

use std::sync::Arc;

use mesh_proto::mesh::{
    PingRequest, ProbePathRequest, ProbePathResponse, mesh_inspect_server::MeshInspect,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{
    command::Commands,
    path::{self, PingStream, result_of, unknown},
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
    pings: Arc<Semaphore>,
    looks: Arc<Semaphore>,
}

impl InspectService {
    pub(crate) fn new(commands: Commands) -> Self {
        Self {
            commands,
            pings: Arc::new(Semaphore::new(PINGS_AT_A_TIME)),
            looks: Arc::new(Semaphore::new(LOOKS_AT_A_TIME)),
        }
    }
}

#[tonic::async_trait]
impl MeshInspect for InspectService {
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
