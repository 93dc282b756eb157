//! What can go wrong with the fast path, and what to do about it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// What can go wrong with the fast path.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// The BPF file system is not there and cannot be mounted.
    #[error(
        "no BPF file system at {path} and mounting one failed ({source}): mount it with \
         `mount -t bpf bpf {path}`, or name another mount point with --bpffs"
    )]
    Bpffs {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory or symlink in the pin directory could not be made, read or removed.
    #[error("cannot {action} {path} in the pin directory: {source}")]
    PinDirectory {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another runtime holds the pin directory.
    #[error(
        "the pin directory {path} is held by another runtime: stop it, or give this one a BPF \
         file system of its own with --bpffs"
    )]
    PinDirectoryInUse {
        /// The pin directory.
        path: PathBuf,
    },
    /// The object or one of its maps was refused.
    #[error("the kernel refused the eBPF object or one of its maps ({hint}): {source}")]
    Load {
        /// The usual reason for this error.
        hint: &'static str,
        /// What was refused.
        source: Box<EbpfError>,
    },
    /// A program was refused.
    #[error("the kernel refused program {program} ({hint}): {source}")]
    Program {
        /// The program.
        program: &'static str,
        /// The usual reason for this error.
        hint: &'static str,
        /// What the kernel said, with the verifier's log where there is one.
        source: Box<ProgramError>,
    },
    /// A program could not be attached.
    #[error("cannot attach {program} to {interface} by {mode}: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// `tcx` or `clsact`.
        mode: &'static str,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map could not be read or written.
    #[error("map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// There are more peers than the map holds.
    #[error(
        "{wanted} peers do not fit a map of {capacity}: the map is as large as the cluster CIDR \
         has subnets, so check --cluster-cidr and --node-prefix"
    )]
    TooManyPeers {
        /// Peers asked for.
        wanted: usize,
        /// Entries the map has.
        capacity: u32,
    },
    /// The object lacks something this runtime needs: they are of different versions.
    #[error("the eBPF object has no {what} {name}: object and runtime are of different versions")]
    Missing {
        /// `map` or `program`.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// The drop events and the programs' log cannot be read.
    #[error("cannot read events of the programs: {0}")]
    Events(String),
}

/// The usual reason for an error number of the bpf system call, in words an operator can use.
pub(super) fn hint(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or the verifier found a fault"
        }
        Some(libc::EINVAL) => "the kernel may be older than 5.13, or the verifier found a fault",
        Some(libc::E2BIG | libc::ENOSPC) => "the program is too large for this kernel",
        Some(libc::ENOMEM) => "out of memory, or the locked-memory limit (ulimit -l) is too low",
        Some(libc::ENOSYS) => "the kernel is built without CONFIG_BPF_SYSCALL",
        _ => "see the kernel's answer",
    }
}
