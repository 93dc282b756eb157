//! What this host remembers although a database is lost: that its control plane has had credentials. Without that, an empty
//! database would be taken for a new mesh, in which processes of this host may do everything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_credentials::secret_file;
use tracing::warn;

/// The file, in the state directory.
const NAME: &str = "had-credentials";

/// What stands in it, for whoever finds it.
const TEXT: &str = "\
The control plane with this state directory has had credentials. Whatever becomes of its database, it lets nobody in without
any, not even processes of its own host. Only for a new mesh, remove this file along with authority.key.pem and the
database.
";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    file: OnceLock<PathBuf>,
    is_made: AtomicBool,
    is_failing: AtomicBool,
}

impl Mark {
    /// Keeps it in this directory. Whether it is there already, as far as can be told: what cannot be is not let in.
    pub(crate) fn keep_in(&self, directory: &Path) -> bool {
        let file = directory.join(NAME);
        // A link that leads nowhere is there as well: nothing that can be made in its place.
        let (is_made, had_some) = match file.symlink_metadata() {
            Ok(_) => (true, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (false, false),
            Err(error) => {
                warn!(name: "cannot-tell-whether-control-plane", %error, file = %file.display(),
                    "cannot tell whether this control plane has had credentials: it lets nobody in without");
                (false, true)
            }
        };
        self.is_made.store(is_made, Ordering::Relaxed);
        // Fails only if it is somewhere already.
        let _ = self.file.set(file);
        had_some
    }

    /// Makes it, unless it is there; without a directory it is not kept. What fails is tried again with every change of
    /// credentials, and said once.
    pub(crate) fn make(&self) {
        let Some(file) = self.file.get() else { return };
        if self.is_made.load(Ordering::Relaxed) {
            return;
        }
        match secret_file::create(file, TEXT) {
            Ok(_) => self.is_made.store(true, Ordering::Relaxed),
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    warn!(name: "credentials-mark-not-kept", %error, "if its database is lost, this control plane will not know that it has had credentials");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_for_the_process_after_and_made_as_soon_as_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("state");
        let mark = Mark::default();
        mark.make();
        assert!(!mark.keep_in(&directory));
        // There is no such directory yet.
        mark.make();
        std::fs::create_dir(&directory).unwrap();
        assert!(!Mark::default().keep_in(&directory));
        mark.make();
        assert!(Mark::default().keep_in(&directory));
    }

    #[test]
    fn what_cannot_be_told_counts_as_having_had_some() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        // No directory: neither there nor not there.
        assert!(Mark::default().keep_in(&file));
        std::os::unix::fs::symlink("nowhere", folder.path().join(NAME)).unwrap();
        assert!(Mark::default().keep_in(folder.path()));
    }
}
