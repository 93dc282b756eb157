//! Where the daemons' binaries are.

use std::{
    env,
    ffi::OsString,
    path::{self, Path, PathBuf},
};

use crate::error::{Error, Result};

/// The environment variable that names the directory of the binaries.
pub const BIN_DIR_VARIABLE: &str = "QUILT_MESH_BIN_DIR";

/// Finds a binary: in `QUILT_MESH_BIN_DIR` alone if that is set, else beside the running
/// executable, and for a test or bench, which lies in `deps`, one directory up.
pub(crate) fn find(name: &'static str) -> Result<PathBuf> {
    let executable = env::current_exe()
        .map_err(|error| Error::system("find", "the running executable", error))?;
    let dirs = search_dirs(env::var_os(BIN_DIR_VARIABLE), &executable);
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::BinaryMissing {
            name,
            searched: dirs
                .iter()
                .map(|dir| dir.display().to_string())
                .collect::<Vec<_>>()
                .join(" or "),
        })
}

fn search_dirs(variable: Option<OsString>, executable: &Path) -> Vec<PathBuf> {
    if let Some(dir) = variable.filter(|dir| !dir.is_empty()) {
        // Daemons begin in directories of their own.
        return vec![path::absolute(&dir).unwrap_or_else(|_| dir.into())];
    }
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(Path::to_path_buf)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_finds_binaries_one_directory_above_its_own() {
        let dirs = search_dirs(None, Path::new("/t/debug/deps/mesh_runtime-0f"));
        assert_eq!(dirs, [Path::new("/t/debug/deps"), Path::new("/t/debug")]);
    }

    #[test]
    fn the_variable_is_the_only_place_searched_when_set() {
        let dirs = search_dirs(Some("/opt/bin".into()), Path::new("/t/debug/demo"));
        assert_eq!(dirs, [Path::new("/opt/bin")]);
    }

    #[test]
    fn a_relative_directory_is_one_below_where_this_process_is() {
        let dirs = search_dirs(Some("target/release".into()), Path::new("/t/debug/demo"));
        let expected = env::current_dir().unwrap().join("target/release");
        assert_eq!(dirs, [expected]);
    }
}
