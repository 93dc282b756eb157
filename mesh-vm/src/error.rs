//! What can keep a kernel from being booted.

use std::{io, path::PathBuf};

use crate::series::Series;

/// [`std::result::Result`] with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error on the host's side. What fails in the guest is in the report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text that names no series.
    #[error("{0:?} is no series of kernels: they look like 6.1 or 6.12")]
    Series(String),

    /// The machine is no x86_64, whose kernels these are.
    #[error(
        "kernels are booted with the binaries built here, which are for {0}; that works on \
         x86_64 only"
    )]
    Architecture(&'static str),

    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried, e.g. "create".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },

    /// Another process boots this series.
    #[error(
        "{} is still held after {seconds} s: another process boots this series",
        .lock.display()
    )]
    Busy {
        /// The file that is locked.
        lock: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },

    /// A program could not be started.
    #[error("cannot run {program} (Debian's package {package}): {source}")]
    Start {
        /// Its name.
        program: &'static str,
        /// What brings it.
        package: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },

    /// A program failed.
    #[error("`{command}` {status}: {stderr}")]
    Command {
        /// As it could be typed.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },

    /// A package could not be had.
    #[error(
        "cannot download {package}, which is needed to boot a kernel: {reason}. apt has to reach its \
         archive; packages that were downloaded before need no network"
    )]
    Download {
        /// The package, or what else was to be fetched.
        package: String,
        /// What apt said.
        reason: Box<Error>,
    },

    /// apt knows no kernel of the series.
    #[error(
        "apt knows no package {}…-cloud-amd64. If its lists are old or missing: `sudo apt-get \
         update`. Debian 11 has 5.10, Debian 12 has 6.1 and 6.12", .0.package_prefix()
    )]
    NoKernel(Series),

    /// Debian's backports hold no kernel.
    #[error("the backports of Debian, as apt knows them, hold no package with a kernel")]
    NoBackport,

    /// A package does not hold what it should.
    #[error("{} holds no {what}", .dir.display())]
    Missing {
        /// What was looked for.
        what: String,
        /// Where.
        dir: PathBuf,
    },

    /// A program is linked to a library that is not there.
    #[error("{} needs {library}, which this machine does not have", .program.display())]
    Library {
        /// The program.
        program: PathBuf,
        /// The library.
        library: String,
    },

    /// A file too large for the archive's 32-bit sizes.
    #[error("{name} has {size} bytes: an initramfs holds files of up to 4 GiB")]
    TooLarge {
        /// The file's name in the archive.
        name: String,
        /// Its size in bytes.
        size: usize,
    },
}
