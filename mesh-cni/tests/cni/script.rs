//! Plugins of a few lines, for what comes before and after ours in a list.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mesh_testbed::write_script;

/// Writes a plugin into a directory, which is made.
pub(crate) fn write(dir: &Path, name: &str, lines: &str) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let path = dir.join(name);
    write_script(&path, lines).unwrap();
    path
}
