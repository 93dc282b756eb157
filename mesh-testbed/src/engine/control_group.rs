//! The control group of an engine, which the kernel keeps when everything in it has ended.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{deadline::Deadline, error::Result, reaper::Registration};

const ROOT: &str = "/sys/fs/cgroup";

/// A control group of this name, in every hierarchy there is. Dropping it removes it with all
/// that are below it: their processes must have ended.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    name: String,
    registration: Registration,
}

impl ControlGroup {
    /// Registers it for removal; whoever puts a process there makes it.
    pub(crate) fn new(name: &str, registration: &Registration) -> Result<Self> {
        registration.control_group(name)?;
        Ok(Self {
            name: name.into(),
            registration: registration.clone(),
        })
    }

    /// As engines take it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if self.registration.is_kept() {
            return;
        }
        // A process that ended leaves its group a moment later.
        let deadline = Deadline::after(Duration::from_secs(5));
        while groups(Path::new(ROOT), &self.name)
            .iter()
            .any(|group| remove(group).is_err())
            && !deadline.remaining().is_zero()
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Version 2 has one hierarchy, at the root or in `unified`; version 1 one for each controller
/// (cgroups(7)).
fn groups(root: &Path, name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    hierarchies
        .map(|hierarchy| hierarchy.path())
        .chain([root.to_owned()])
        .map(|hierarchy| hierarchy.join(name))
        .filter(|group| group.is_dir())
        .collect()
}

/// Only directories can be removed in a hierarchy, and only empty ones.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_in_every_hierarchy_and_removed_with_those_below() {
        let root = std::env::temp_dir().join(format!("qm-cgroups-{}", std::process::id()));
        for dir in ["memory/qm-1/one/two", "pids/qm-1", "qm-1/one", "pids/qm-12"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for group in groups(&root, "qm-1") {
            remove(&group).unwrap();
        }
        let left = groups(&root, "qm-1").len() + groups(&root, "qm-12").len();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(left, 1, "qm-12 is another one's");
    }
}
