//! A network of `quilt-cni` for an engine that reads CNI's configuration.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{NETWORK, podman};
use crate::{binaries, error::Result};

/// Where the engine finds plugins: ours beside those of the distribution.
pub(super) const PLUGIN_DIR: &str = "/mnt/plugins";

const PLUGIN: &str = "quilt-cni";

/// What is installed.
#[derive(Debug)]
pub(super) struct Installation {
    plugin: PathBuf,
    neighbours: PathBuf,
}

impl Installation {
    pub(super) fn find() -> Result<Self> {
        Ok(Self {
            plugin: binaries::find(PLUGIN)?,
            neighbours: podman::cni_plugins()?,
        })
    }

    /// Writes plugins and network to an engine's directory, whose name the leases carry.
    pub(super) fn configure(&self, dir: &Path, engine: &str) -> io::Result<()> {
        let plugins = dir.join("plugins");
        fs::create_dir_all(&plugins)?;
        symlink(&self.plugin, plugins.join(PLUGIN))?;
        for neighbour in fs::read_dir(&self.neighbours)? {
            let neighbour = neighbour?;
            symlink(neighbour.path(), plugins.join(neighbour.file_name()))?;
        }
        let networks = dir.join("networks");
        fs::create_dir_all(&networks)?;
        write_network(&networks, engine, NETWORK)
    }
}

/// Sorted behind all others that an engine may find there, as an operator has it.
pub(super) fn write_network(dir: &Path, engine: &str, network: &str) -> io::Result<()> {
    let file = dir.join(format!("99-{network}.conflist"));
    fs::write(file, conflist(engine, network))
}

fn conflist(engine: &str, network: &str) -> String {
    let conflist = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": network,
        "plugins": [
            {
                "type": PLUGIN,
                "engine": engine,
                "capabilities": { "ips": true, "mac": true, "aliases": true },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    format!("{conflist:#}\n")
}
