//! `mesh.MeshMaintenance`: a node that is to be worked on.

use mesh_ipam::Ipam;
use mesh_proto::mesh::{
    DrainRequest, DrainResponse, ForgetRequest, ForgetResponse,
    mesh_maintenance_server::MeshMaintenance,
};
use tonic::{Request, Response, Status};

use super::{
    ask::ask,
    command::{Command, Commands, Forgotten},
};

/// Maintenance of this node.
#[derive(Clone, Debug)]
pub struct MaintenanceService {
    /// Or why nothing is leased here.
    addresses: Result<Ipam, String>,
    commands: Commands,
}

impl MaintenanceService {
    pub(crate) fn new(addresses: Result<Ipam, String>, commands: Commands) -> Self {
        Self {
            addresses,
            commands,
        }
    }
}

#[tonic::async_trait]
impl MeshMaintenance for MaintenanceService {
    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        let addresses = self.addresses.as_ref();
        let addresses = addresses.map_err(|reason| Status::failed_precondition(reason.clone()))?;
        let before = addresses.drained();
        let drained = match request.into_inner().drained {
            None => Ok(before),
            Some(drained) => addresses.set_drained(drained).await,
        };
        Ok(Response::new(match drained {
            Ok(since) => {
                match (before, since) {
                    (None, Some(_)) => {
                        tracing::info!(name: "drained-no-new-containers-taken", "drained: no new containers are taken")
                    }
                    (Some(_), None) => {
                        tracing::info!(name: "no-longer-drained", "no longer drained: new containers are taken")
                    }
                    _ => {}
                }
                DrainResponse {
                    success: true,
                    error: String::new(),
                    since,
                }
            }
            Err(error) => DrainResponse {
                success: false,
                error: error.to_string(),
                since: before,
            },
        }))
    }

    async fn forget(
        &self,
        request: Request<ForgetRequest>,
    ) -> Result<Response<ForgetResponse>, Status> {
        let subnet = request.into_inner().subnet;
        let forgotten = ask(&self.commands, |reply| Command::Forget { subnet, reply }).await?;
        Ok(Response::new(match forgotten {
            Ok(Forgotten { removed, kept }) => ForgetResponse {
                success: true,
                error: String::new(),
                removed,
                kept,
            },
            Err(refusal) => ForgetResponse {
                error: refusal.to_string(),
                ..ForgetResponse::default()
            },
        }))
    }
}
