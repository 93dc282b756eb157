//! That this host has left its mesh for good: a file in the state directory, by which an agent that is started again knows
//! that it is not to register.
//!
//! Who leaves ends everything that the agent does for the node; what is left is the socket, on which the operator says when
//! the host shall join again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

/// Name of the file.
const FILE: &str = "left";

/// Operators who may wait at a time.
const WAITING: usize = 1;

/// The longest that the control plane may take to let a node leave.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// The mark of a host that has left.
#[derive(Debug, Clone)]
pub struct Departure {
    path: PathBuf,
}

impl Departure {
    /// That in a state directory.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            path: directory.join(FILE),
        }
    }

    /// Whether this host has left.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn is_marked(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // What should be a directory is a file, or this user may not look into it: it could not have left here. It goes
            // on as without a state directory, which is said elsewhere.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Marks it as one that has left. That is on the disk when this returns.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn mark(&self, node_id: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        writeln!(
            file,
            "the node {node_id} has left the mesh; meshctl leave --undo lets this host join again"
        )?;
        file.sync_all()?;
        self.sync_directory()
    }

    /// Takes the mark away. That is on the disk when this returns.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn unmark(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.sync_directory()),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn sync_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// What an operator on this host wants of the agent.
#[derive(Debug)]
pub enum Wish {
    /// That the node leaves the mesh for good.
    Leave(oneshot::Sender<Result<Left, Refusal>>),
    /// That the host joins again.
    JoinAgain(oneshot::Sender<Result<(), Refusal>>),
}

/// Where wishes go.
pub type Wishes = mpsc::Sender<Wish>;

/// Makes a way for them.
#[must_use]
pub fn wishes() -> (Wishes, mpsc::Receiver<Wish>) {
    mpsc::channel(WAITING)
}

/// A node that has left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Left {
    /// What the control plane called it; empty where it left before.
    pub node_id: String,
    /// The subnet that it had.
    pub subnet: String,
    /// Whether it had left before.
    pub before: bool,
}

/// Why a wish is not fulfilled. Everything is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no node that could leave.
    #[error(
        "this host is not registered, so that no node could leave: see in meshctl status why not, and repeat this when it is; \
         where the control plane is gone for good, stop the agent"
    )]
    NotRegistered,
    /// The node could not show that it is itself.
    #[error(
        "the node has no key, without which it cannot leave by itself (the agent's --state-dir): have an operator remove it \
         (meshctl node remove)"
    )]
    NoKey,
    /// The control plane does not say yes.
    #[error(
        "the control plane did not let the node leave, which goes on as before; repeat this: {0}"
    )]
    ControlPlane(String),
    /// The mark cannot be written.
    #[error("{}: {reason}; make the agent's --state-dir writable for its user, and repeat this; the node goes on as before", .path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_left_is_one_until_it_joins_again() {
        let directory = tempfile::tempdir().unwrap();
        let departure = Departure::in_directory(directory.path());
        assert!(!departure.is_marked().unwrap());
        departure.mark("a").unwrap();
        assert!(departure.is_marked().unwrap());
        departure.unmark().unwrap();
        departure.unmark().unwrap();
        assert!(!departure.is_marked().unwrap());
    }

    #[test]
    fn without_a_state_directory_nobody_has_left() {
        let directory = tempfile::tempdir().unwrap();
        let departure = Departure::in_directory(&directory.path().join("missing"));
        assert!(!departure.is_marked().unwrap());
        assert!(departure.mark("a").is_err());
    }
}
