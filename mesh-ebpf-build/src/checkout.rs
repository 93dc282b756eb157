//! Where the sources lie and where results go.

use std::path::{Path, PathBuf};

use crate::{Architecture, Error};

/// A checkout of this repository and the target directory that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// Holds the workspace's `Cargo.toml` and the folder `mesh-ebpf`.
    pub root: PathBuf,
    /// Cargo's target directory for the outer build.
    pub target_dir: PathBuf,
}

impl Checkout {
    /// The checkout that holds the package in `manifest_dir` (cargo's `CARGO_MANIFEST_DIR`), with the target
    /// directory that holds `artifact`: a build script's `OUT_DIR`, or the path of a running program.
    ///
    /// The target directory is read off the artifact because an environment variable, a configuration file
    /// and a command line option can all move it, and a build script sees none of the three reliably.
    /// Programs outside a target directory fall back to `target` in the checkout.
    ///
    /// # Errors
    ///
    /// [`Error::NotACheckout`] when `manifest_dir` is not a folder of this repository.
    pub fn containing(manifest_dir: &Path, artifact: &Path) -> Result<Self, Error> {
        let root = manifest_dir
            .ancestors()
            .find(|dir| {
                dir.join("mesh-ebpf/Cargo.toml").is_file() && dir.join("Cargo.lock").is_file()
            })
            .ok_or_else(|| Error::NotACheckout {
                dir: manifest_dir.to_owned(),
            })?;
        // Cargo marks each target directory so that backup programs leave it out.
        let target_dir = artifact
            .ancestors()
            .find(|dir| dir.join("CACHEDIR.TAG").is_file())
            .map_or_else(|| root.join("target"), Path::to_owned);
        Ok(Self {
            root: root.to_owned(),
            target_dir,
        })
    }

    /// Everything this crate writes lies in here. It is also the nested cargo's target directory, so the
    /// outer cargo's lock is never waited for.
    #[must_use]
    pub fn ebpf_dir(&self) -> PathBuf {
        self.target_dir.join("ebpf")
    }

    /// Where the finished object is: `ebpf/mesh-ebpf.o`, with the processor's name added when it is not
    /// the one of this machine.
    #[must_use]
    pub fn object_path(&self, architecture: &Architecture) -> PathBuf {
        let name = if *architecture == Architecture::host() {
            "mesh-ebpf.o".to_owned()
        } else {
            format!("mesh-ebpf-{}.o", architecture.name)
        };
        self.ebpf_dir().join(name)
    }

    /// Files and folders that decide the object's bytes, for `cargo::rerun-if-changed`.
    #[must_use]
    pub fn inputs(&self) -> Vec<PathBuf> {
        ["mesh-ebpf", "mesh-layout", "Cargo.toml", "Cargo.lock"]
            .map(|name| self.root.join(name))
            .into()
    }
}
