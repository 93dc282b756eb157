//! `mesh.MeshInspect`: what a person asks a node about its network.

use mesh_proto::mesh::mesh_inspect_server::MeshInspect;

use super::command::Commands;

/// Looking into this node.
#[derive(Clone, Debug)]
pub struct InspectService {
    #[expect(dead_code, reason = "no call yet")]
    commands: Commands,
}

impl InspectService {
    pub(crate) fn new(commands: Commands) -> Self {
        Self { commands }
    }
}

#[tonic::async_trait]
impl MeshInspect for InspectService {}
