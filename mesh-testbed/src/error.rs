//! What can go wrong while a testbed is made or used.

use std::{io, path::PathBuf, time::Duration};

use mesh_rest::client::CallError;

/// An error of the testbed. The message names the namespace, process or value, and where
/// it can, the command that helps to look at it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces need root.
    #[error(
        "the testbed makes network namespaces, which needs root: run the command again \
         with `sudo -E`"
    )]
    NotRoot,

    /// A system call on a namespace, mount or file failed.
    #[error("cannot {action} {subject}: {source}")]
    System {
        /// What was tried, e.g. "enter".
        action: &'static str,
        /// On what, e.g. "network namespace qm-1-0-host1".
        subject: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },

    /// A netlink request failed.
    #[error("cannot {action} in network namespace {namespace}: {source}")]
    Netlink {
        /// What was tried, e.g. "create bridge br0".
        action: String,
        /// The namespace it was tried in.
        namespace: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },

    /// An interface that should exist does not.
    #[error("network namespace {namespace} has no interface {interface}: {hint}")]
    NoInterface {
        /// The namespace that was searched.
        namespace: String,
        /// The interface's name.
        interface: String,
        /// What usually creates it.
        hint: &'static str,
    },

    /// The runtime did not give a container its interface.
    #[error("cannot attach {container}: {reason}")]
    Attach {
        /// The container.
        container: String,
        /// The runtime's reason.
        reason: String,
    },

    /// A daemon's binary is not built.
    #[error(
        "no binary {name} in {searched}: build it with `cargo build --workspace --bins` \
         or set QUILT_MESH_BIN_DIR to the directory that holds it"
    )]
    BinaryMissing {
        /// The binary's file name.
        name: &'static str,
        /// The directories that were searched.
        searched: String,
    },

    /// PostgreSQL is not installed.
    #[error(
        "PostgreSQL is not installed: neither /usr/lib/postgresql/*/bin nor PATH has initdb, \
         postgres and psql; `cargo xtask setup` as root installs it on Debian or Ubuntu \
         (package postgresql)"
    )]
    PostgresMissing,

    /// A container engine, or something that it needs, is not installed.
    #[error(
        "{what} not found: tests with real containers need Podman with its CNI back end, Docker, and \
         containerd; `cargo xtask setup` as root installs the first on Debian 12 (packages podman, \
         runc, containernetworking-plugins, busybox-static), and unpacks the others (docker.io, \
         containerd) below the target directory"
    )]
    EngineMissing {
        /// What was looked for.
        what: &'static str,
    },

    /// No root file system of a distribution.
    #[error(
        "there is no root file system of the distribution that QUILT_MESH_DISTRIBUTION names, {suite:?}: \
         `cargo xtask test --engines` makes them below the target directory, and runs these tests"
    )]
    DistributionMissing {
        /// The distribution's name; may be empty.
        suite: String,
    },

    /// A Podman that does not know CNI.
    #[error(
        "{version} is not the Podman that tests with real containers are made for: version 4 \
         with its CNI back end, as Debian 12 packages it"
    )]
    PodmanUnfit {
        /// What it says of itself.
        version: String,
    },

    /// A daemon is already running, or is not.
    #[error("{daemon} on {place} {problem}")]
    DaemonState {
        /// The daemon's binary name.
        daemon: &'static str,
        /// The host or namespace it belongs to.
        place: String,
        /// What is wrong with its state.
        problem: &'static str,
    },

    /// Something did not happen in time.
    #[error("{what} did not happen within {waited:?}: {state}")]
    Deadline {
        /// The awaited condition.
        what: String,
        /// How long it was waited for.
        waited: Duration,
        /// What was seen last; for daemons also their last log lines and the command
        /// that enters their namespace.
        state: String,
    },

    /// A traffic tool failed, as opposed to packets being lost.
    #[error("{tool} from {from} to {to}: {source}")]
    Traffic {
        /// "ping", "TCP transfer" or "UDP flow".
        tool: &'static str,
        /// The sending namespace.
        from: String,
        /// The destination.
        to: String,
        /// The failed system call.
        #[source]
        source: io::Error,
    },

    /// A gRPC connection or call to a runtime failed.
    #[error("{call} on {host}: {reason}")]
    Grpc {
        /// The call.
        call: &'static str,
        /// The host whose runtime was called.
        host: String,
        /// The transport's or the runtime's answer.
        reason: String,
    },

    /// A REST call to the control plane failed.
    #[error(transparent)]
    Rest(#[from] CallError),

    /// A program that the testbed reads from failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The whole command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote to stderr.
        stderr: String,
    },

    /// An argument that cannot work.
    #[error("{value}: {rule}")]
    Invalid {
        /// The offending value.
        value: String,
        /// The rule it breaks.
        rule: String,
    },

    /// A kept cluster's record cannot be read.
    #[error("{path} is not the record of a kept testbed: {reason}")]
    Kept {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Shorthand for results of the testbed.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn system(
        action: &'static str,
        subject: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::System {
            action,
            subject: subject.into(),
            source: source.into(),
        }
    }
}
