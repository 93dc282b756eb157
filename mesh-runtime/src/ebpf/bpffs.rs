//! The BPF file system and the directory in which maps and links are pinned.
//!
//! ```text
//! /sys/fs/bpf/quilt-mesh/          held with flock(2) while a runtime lives
//! ├── v1/                          maps; the layout version is part of the path
//! │   ├── peers, peer_stats, …
//! ├── links/                       tcx links: <netns>-<ifindex>-<program>
//! └── peers → v1/peers, …          so that an operator need not know the version
//! ```

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use mesh_layout::{LAYOUT_VERSION, map_names};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount, umount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{FastPathError, migrate};

/// What `/proc/self/mountinfo` shows as the source of a file system that we mounted.
const MOUNT_SOURCE: &str = "quilt-mesh";

/// Name of the pin directory below the BPF file system.
const DIRECTORY: &str = "quilt-mesh";

/// The pin directory, held for this runtime alone.
#[derive(Debug)]
pub(super) struct PinDirectory {
    path: PathBuf,
    /// Maps outlive the daemon on purpose; the lock must not, and does not.
    _lock: Flock<File>,
}

impl PinDirectory {
    /// Mounts the BPF file system at `bpffs` if there is none, makes the directories and
    /// takes the lock.
    pub(super) fn open(bpffs: &Path) -> Result<Self, FastPathError> {
        ensure_mounted(bpffs)?;
        let path = bpffs.join(DIRECTORY);
        // Not the maps': it is not there as long as another layout's may be taken over.
        make(&[&path, &links_in(&path)])?;
        let file = File::open(&path).map_err(|source| FastPathError::PinDirectory {
            action: "open",
            path: path.clone(),
            source,
        })?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                FastPathError::PinDirectoryInUse { path: path.clone() }
            } else {
                FastPathError::PinDirectory {
                    action: "lock",
                    path: path.clone(),
                    source: errno.into(),
                }
            }
        })?;
        Ok(Self { path, _lock: lock })
    }

    /// Makes the directories again that somebody has removed.
    pub(super) fn make_directories(&self) -> Result<(), FastPathError> {
        make(&[&self.path, &maps_in(&self.path), &links_in(&self.path)])
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        maps_in(&self.path).join(name)
    }

    /// The maps of a build with another layout that are to be taken over.
    ///
    /// What is left of a takeover that was not finished, and of builds before the last, is
    /// removed: nobody keeps it up to date.
    pub(super) fn earlier_maps(&self) -> Result<Option<PathBuf>, FastPathError> {
        let failed = |action: &'static str| {
            move |source| FastPathError::PinDirectory {
                action,
                path: self.path.clone(),
                source,
            }
        };
        let own = version_directory();
        let mut present = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed("read"))? {
            let name = entry.map_err(failed("read"))?.file_name();
            let name = name.to_string_lossy();
            if migrate::version(&name).is_some() {
                present.push(name.into_owned());
            }
        }
        let link = fs::read_link(self.path.join(map_names::CONFIG)).ok();
        let current = link
            .as_deref()
            .and_then(Path::parent)
            .map(|it| it.to_string_lossy().into_owned());
        let source = migrate::source(current.as_deref(), &own, &present);
        for name in present {
            let keep = match &source {
                Some(source) => name == *source,
                None => name == own,
            };
            if !keep {
                migrate::remove(&self.path.join(name))?;
            }
        }
        let maps = maps_in(&self.path);
        fs::create_dir_all(&maps).map_err(failed("create"))?;
        Ok(source.map(|name| self.path.join(name)))
    }

    /// Where links are pinned.
    pub(super) fn links(&self) -> PathBuf {
        links_in(&self.path)
    }

    /// Points a symlink beside the version's directory to each map.
    pub(super) fn link_names(&self) -> Result<(), FastPathError> {
        for name in map_names::ALL {
            let path = self.path.join(name);
            let target = Path::new(&version_directory()).join(name);
            if fs::read_link(&path).is_ok_and(|current| current == target) {
                continue;
            }
            let result = match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => std::os::unix::fs::symlink(&target, &path),
            };
            result.map_err(|source| FastPathError::PinDirectory {
                action: "link",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// Removes every pin and the directory, so that nothing of ours is left.
    pub(super) fn remove(self) -> Result<(), FastPathError> {
        fs::remove_dir_all(&self.path).map_err(|source| FastPathError::PinDirectory {
            action: "remove",
            path: self.path.clone(),
            source,
        })
    }
}

/// Where links are pinned below `bpffs`.
pub(super) fn link_pins(bpffs: &Path) -> PathBuf {
    links_in(&bpffs.join(DIRECTORY))
}

/// Where a map is pinned below `bpffs`, by this build or one with another layout.
pub(super) fn current_pin(bpffs: &Path, map: &str) -> PathBuf {
    // Over the symlink.
    bpffs.join(DIRECTORY).join(map)
}

fn make(directories: &[&Path]) -> Result<(), FastPathError> {
    for directory in directories {
        fs::create_dir_all(directory).map_err(|source| FastPathError::PinDirectory {
            action: "create",
            path: (*directory).to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Whether a pin directory exists below `bpffs`.
pub(super) fn exists(bpffs: &Path) -> bool {
    is_bpffs(bpffs).unwrap_or(false) && bpffs.join(DIRECTORY).is_dir()
}

fn version_directory() -> String {
    format!("v{LAYOUT_VERSION}")
}

fn maps_in(path: &Path) -> PathBuf {
    path.join(version_directory())
}

fn links_in(path: &Path) -> PathBuf {
    path.join("links")
}

fn is_bpffs(path: &Path) -> Result<bool, nix::Error> {
    Ok(statfs(path)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts a BPF file system, as systemd does at boot, where there is none.
fn ensure_mounted(path: &Path) -> Result<(), FastPathError> {
    let failed = |source: io::Error| FastPathError::Bpffs {
        path: path.to_owned(),
        source,
    };
    if path.exists() {
        if is_bpffs(path).map_err(|errno| failed(errno.into()))? {
            return Ok(());
        }
    } else {
        fs::create_dir_all(path).map_err(failed)?;
    }
    mount(
        Some(MOUNT_SOURCE),
        path,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=700"),
    )
    .map_err(|errno| failed(errno.into()))?;
    tracing::info!(name: "mounted-bpf-file-system", path = %path.display(), "mounted a BPF file system");
    Ok(())
}

/// What the kernel itself puts into every BPF file system (`populate_bpffs`).
const KERNEL_FILES: [&str; 2] = ["maps.debug", "progs.debug"];

/// Unmounts the BPF file system at `path` if it is one that we mounted, and empty.
pub(super) fn unmount_own(path: &Path) -> Result<(), FastPathError> {
    let failed = |source: io::Error| FastPathError::PinDirectory {
        action: "unmount",
        path: path.to_owned(),
        source,
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    let canonical = fs::canonicalize(path).map_err(failed)?;
    if !is_own_mount(&mounts, &canonical) {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        if !KERNEL_FILES.contains(&&*entry.map_err(failed)?.file_name().to_string_lossy()) {
            return Ok(());
        }
    }
    umount(path).map_err(|errno| failed(errno.into()))?;
    tracing::info!(name: "unmounted-bpf-file-system", path = %path.display(), "unmounted the BPF file system");
    Ok(())
}

/// Whether what is mounted at `path`, by the text of `/proc/self/mountinfo`
/// (proc_pid_mountinfo(5)), is ours. Of several mounts on one point the last one counts.
fn is_own_mount(mounts: &str, path: &Path) -> bool {
    let last = mounts.lines().rev().find(|line| {
        let point = line.split(' ').nth(4);
        point.is_some_and(|point| Path::new(&unescape(point)) == path)
    });
    last.and_then(|line| line.split_once(" - "))
        .is_some_and(|(_, rest)| rest.starts_with(&format!("bpf {MOUNT_SOURCE} ")))
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_system_that_we_mounted_last_is_ours() {
        let mounts = "\
36 35 0:30 / /sys/fs/bpf rw,nosuid - bpf bpf rw,mode=700
37 35 0:31 / /run/our\\040own/bpf rw,nosuid shared:7 - bpf quilt-mesh rw,mode=700
38 35 0:32 / /run/over rw - bpf quilt-mesh rw
39 35 0:33 / /run/over rw - bpf bpf rw
";
        assert!(is_own_mount(mounts, Path::new("/run/our own/bpf")));
        for other in ["/sys/fs/bpf", "/run/over", "/run", "/nowhere"] {
            assert!(!is_own_mount(mounts, Path::new(other)), "{other}");
        }
    }
}
