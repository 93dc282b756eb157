//! Where PostgreSQL is installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Debian and its descendants keep each major version's programs in a folder of its own, outside
/// of PATH.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Without any of these there is no server to make.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "psql"];

/// The folder with PostgreSQL's programs.
#[derive(Debug)]
pub(crate) struct Installation(PathBuf);

impl Installation {
    /// The newest of Debian's versions, else the one in PATH.
    pub(crate) fn find() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        debian_folders(Path::new(DEBIAN))
            .into_iter()
            .chain(env::split_paths(&path))
            .find(|folder| PROGRAMS.iter().all(|name| folder.join(name).is_file()))
            .map(Self)
            .ok_or(Error::PostgresMissing)
    }

    /// The path of one of its programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// Newest first.
fn debian_folders(root: &Path) -> Vec<PathBuf> {
    let versions = fs::read_dir(root).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|(one, _), (other, _)| other.cmp(one));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_by_number_and_what_is_no_version_is_passed_over() {
        let root = env::temp_dir().join(format!("qm-versions-{}", std::process::id()));
        for name in ["9", "15", "17", "common"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let found = debian_folders(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, ["17", "15", "9"].map(|it| root.join(it).join("bin")));
        assert!(debian_folders(&root).is_empty());
    }
}
