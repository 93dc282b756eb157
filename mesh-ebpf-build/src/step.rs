//! What a build tells while it runs.

use std::fmt;
use std::path::PathBuf;

/// A stretch of work that a person waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Another build holds the target directory.
    WaitsForOtherBuild {
        /// The lock it holds.
        lock: PathBuf,
    },
    /// Packages of the distribution are being installed.
    InstallsPackages {
        /// Their names.
        packages: Vec<String>,
    },
    /// bpf-linker is being compiled.
    InstallsLinker {
        /// Its version.
        version: &'static str,
        /// Major version of the LLVM it is made for.
        llvm: u32,
        /// Where it goes.
        root: PathBuf,
    },
    /// The nested cargo runs; it finds out itself whether anything is to be done.
    Compiles {
        /// The compiler.
        rustc: PathBuf,
        /// Its release, for example `1.96.0`.
        release: String,
    },
}

impl Step {
    /// Whether this adds something to the machine or to the target directory that was not there before.
    #[must_use]
    pub fn installs(&self) -> bool {
        matches!(
            self,
            Self::InstallsPackages { .. } | Self::InstallsLinker { .. }
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitsForOtherBuild { lock } => {
                write!(
                    f,
                    "waiting for another build of the eBPF object ({})",
                    lock.display()
                )
            }
            Self::InstallsPackages { packages } => {
                write!(
                    f,
                    "installing {} with apt-get: a Rust compiler that knows the BPF target",
                    packages.join(" ")
                )
            }
            Self::InstallsLinker {
                version,
                llvm,
                root,
            } => {
                write!(
                    f,
                    "installing bpf-linker {version} for LLVM {llvm} into {}",
                    root.display()
                )
            }
            Self::Compiles { rustc, release } => {
                write!(
                    f,
                    "compiling the eBPF object with {} ({release})",
                    rustc.display()
                )
            }
        }
    }
}
