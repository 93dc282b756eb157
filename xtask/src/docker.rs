//! Docker's programs and containerd's for tests: unpacked, never installed. Debian's packages would start daemons, and Docker's
//! changes the machine's firewall.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::unistd::geteuid;

use crate::cargo;
use crate::foreground::{self, Reach};
use crate::setup::find;

/// Docker's client and daemon; containerd, its shims and its client `ctr`; and a library that few machines have.
const PACKAGES: [&str; 3] = ["docker.io", "containerd", "libdevmapper1.02.1"];

/// Sixty megabytes to download.
const DEADLINE: Duration = Duration::from_secs(600);

/// One program of either.
const PROGRAMS: [&str; 2] = ["dockerd", "ctr"];

/// Unpacks Docker and containerd below the target directory, where tests look for them, unless they are there or installed.
pub(crate) fn ensure() -> anyhow::Result<()> {
    let root = cargo::checkout()?.target_dir.join("docker");
    let path = std::env::var_os("PATH");
    let missing = PROGRAMS.map(|program| match find(program, path.as_deref()) {
        Some(_) => None,
        None => Some(program),
    });
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    if root.join("usr/sbin/dockerd").is_file() || missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    if !geteuid().is_root() || !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "missing: {missing}. As root on Debian or Ubuntu they are unpacked below target; elsewhere install Docker and \
             containerd"
        );
    }
    eprintln!(
        "unpacking {} below target: {missing} missing",
        PACKAGES.join(" ")
    );
    let scratch = root.with_extension("unpacking");
    // An earlier attempt may have been interrupted.
    let _ = std::fs::remove_dir_all(&scratch);
    let outcome = unpack(&scratch).and_then(|()| {
        // Whole or not at all.
        let made = std::fs::rename(scratch.join("root"), &root);
        made.with_context(|| format!("cannot create {}", root.display()))
    });
    let _ = std::fs::remove_dir_all(&scratch);
    outcome
}

fn unpack(scratch: &Path) -> anyhow::Result<()> {
    let root = scratch.join("root");
    std::fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let download = || {
        let mut download = Command::new("apt-get");
        // apt would change to a user that may not write here.
        download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
        download.args(PACKAGES);
        run(download, scratch)
    };
    if download().is_err() {
        let mut update = Command::new("apt-get");
        update.args(["-qq", "update"]);
        run(update, scratch)?;
        download()?;
    }
    let files = std::fs::read_dir(scratch).context("cannot read what was downloaded")?;
    for file in files {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(file).arg(&root);
            run(unpack, scratch)?;
        }
    }
    Ok(())
}

fn run(mut command: Command, dir: &Path) -> anyhow::Result<()> {
    command.current_dir(dir).stdout(std::io::stderr());
    let ended = foreground::run(&mut command, Reach::Program, Some(DEADLINE))
        .with_context(|| format!("cannot run {}", command.get_program().display()))?
        .unless_interrupted()?;
    if !ended.success() {
        bail!("{command:?} {ended}");
    }
    Ok(())
}
