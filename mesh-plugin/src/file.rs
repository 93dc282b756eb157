//! Files that are there whole or not at all, the plugin's own for one.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}: {reason}", path.display())]
pub struct FileError {
    step: &'static str,
    path: PathBuf,
    reason: io::Error,
}

/// Copies the program that runs to a file that engines find, unless it is that one.
///
/// # Errors
///
/// [`FileError`].
pub fn install_self(file: &Path) -> Result<(), FileError> {
    let failed = |step: &'static str, path: &Path| {
        let path = path.to_owned();
        move |reason| FileError { step, path, reason }
    };
    let own = Path::new("/proc/self/exe");
    let own = env::current_exe().map_err(failed("find", own))?;
    // It may be run from there.
    if fs::canonicalize(&own).ok() == fs::canonicalize(file).ok() {
        return Ok(());
    }
    let bytes = fs::read(&own).map_err(failed("read", &own))?;
    replace(file, &bytes, 0o755)
}

/// Writes a file so that it is there whole, or as it was before.
///
/// # Errors
///
/// [`FileError`].
pub fn replace(file: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        let directory = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let mut whole = tempfile::NamedTempFile::new_in(directory)?;
        whole.write_all(content)?;
        let file_itself = whole.as_file();
        file_itself.set_permissions(fs::Permissions::from_mode(mode))?;
        file_itself.sync_all()?;
        whole.persist(file)?;
        Ok(())
    };
    write().map_err(|reason| FileError {
        step: "write",
        path: file.to_owned(),
        reason,
    })
}
