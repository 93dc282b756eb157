//! What a call is about: one interface of one container.

use std::{
    env,
    path::{Path, PathBuf},
};

use mesh_client::mesh;
use mesh_ipam::Owner;

/// One interface of one container, as an engine's call names it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// The runtime's socket.
    pub socket: PathBuf,
    /// Whose address and interface it is.
    pub owner: Owner,
    /// Path of the container's network namespace, as the engine wrote it; empty where a call that takes it off names none.
    pub namespace: PathBuf,
}

impl Interface {
    /// The owner, as the runtime is told.
    pub fn message(&self) -> mesh::Owner {
        mesh::Owner {
            engine: self.owner.engine().to_owned(),
            network: self.owner.network().to_owned(),
            container: self.owner.container().to_owned(),
            interface: self.owner.interface().to_owned(),
        }
    }
}

/// Says something that is no answer to the engine's call.
pub(crate) fn say(what: &str) {
    let program = env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default();
    eprintln!("{}: {what}", program.display());
}
