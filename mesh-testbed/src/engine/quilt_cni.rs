//! `quilt-cni` beside other plugins, for an engine that reads CNI's configuration.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::podman;
use crate::{binaries, error::Result};

/// Where the engine finds plugins: ours beside those of the distribution.
pub(super) const PLUGIN_DIR: &str = "/opt/cni/bin";

/// The plugin's file.
pub(super) const PLUGIN: &str = "/opt/cni/bin/quilt-cni";

/// What is installed.
#[derive(Debug)]
pub(super) struct Installation {
    plugin: PathBuf,
    neighbours: PathBuf,
}

impl Installation {
    pub(super) fn find() -> Result<Self> {
        Ok(Self {
            plugin: binaries::find("quilt-cni")?,
            neighbours: podman::cni_plugins()?,
        })
    }

    /// Writes plugins to an engine's directory, and room for networks.
    pub(super) fn configure(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir.join("networks"))?;
        let plugins = dir.join("plugins");
        fs::create_dir_all(&plugins)?;
        symlink(&self.plugin, plugins.join("quilt-cni"))?;
        for neighbour in fs::read_dir(&self.neighbours)? {
            let neighbour = neighbour?;
            symlink(neighbour.path(), plugins.join(neighbour.file_name()))?;
        }
        Ok(())
    }
}

/// The arguments by which docs/CONTAINER_ENGINES.md tells operators to make a network, for plugins in a directory that is not
/// the engine's first.
pub(super) fn install<'a>(engine: &'a str, network: &'a str) -> [&'a str; 7] {
    [
        "install",
        "--engine",
        engine,
        "--network",
        network,
        "--bin-dir",
        PLUGIN_DIR,
    ]
}
