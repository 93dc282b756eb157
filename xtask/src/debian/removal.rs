//! How a root file system is removed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::mount::umount;

/// Unmounts what is mounted below the folder, and removes it only then: nothing that belongs to somebody else may be
/// reached through it.
pub(crate) fn remove(dir: &Path) -> anyhow::Result<()> {
    let by_hand = || {
        format!(
            "{} is left: unmount what is mounted there, then rm -rf --one-file-system it",
            dir.display()
        )
    };
    let dir = dir.canonicalize().with_context(by_hand)?;
    for mount in mounts_below(&dir, &mounts()?) {
        umount(&mount)
            .with_context(|| format!("cannot unmount {}", mount.display()))
            .with_context(by_hand)?;
    }
    if let Some(mount) = mounts_below(&dir, &mounts()?).first() {
        bail!("{} is still mounted; {}", mount.display(), by_hand());
    }
    let mut rm = Command::new("rm");
    rm.args(["-rf", "--one-file-system", "--"]).arg(&dir);
    // A terminal's Ctrl-C is not for it.
    std::os::unix::process::CommandExt::process_group(&mut rm, 0);
    let status = rm.status().context("cannot run rm")?;
    if !status.success() {
        bail!("rm: {status}; {}", by_hand());
    }
    Ok(())
}

fn mounts() -> anyhow::Result<String> {
    std::fs::read_to_string("/proc/self/mountinfo").context("cannot read what is mounted")
}

/// The mount points at or below a folder (proc_pid_mountinfo(5)), those mounted last first.
fn mounts_below(dir: &Path, mountinfo: &str) -> Vec<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<_> = mounts
        .map(|path| PathBuf::from(unescaped(path)))
        .filter(|path| path.starts_with(dir))
        .collect();
    below.reverse();
    below
}

/// Blanks in paths are written in octal.
fn unescaped(path: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (code, text)| {
        path.replace(code, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_below_a_folder_and_not_beside_it() {
        let mountinfo = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
             2 1 8:1 / /a/fresh/7/root rw - ext4 /dev/a rw\n\
             3 2 0:5 / /a/fresh/7/root/a\\040b rw - proc proc rw\n\
             4 1 0:5 / /a/fresh/77 rw - proc proc rw\n";
        assert_eq!(
            mounts_below(Path::new("/a/fresh/7"), mountinfo),
            [
                Path::new("/a/fresh/7/root/a b"),
                Path::new("/a/fresh/7/root")
            ]
        );
    }
}
