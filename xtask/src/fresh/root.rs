//! The root file system of a bare Debian 12 with the checkout and a toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::program;
use crate::debian::{self, answer, finish, write};

/// What rustup calls itself by.
const PROXIES: [&str; 7] = [
    "cargo",
    "cargo-clippy",
    "cargo-fmt",
    "clippy-driver",
    "rustc",
    "rustdoc",
    "rustfmt",
];

/// How the machine's programs reach the network and whom they trust there, without passwords.
const NETWORK: [&str; 4] = [
    "/etc/resolv.conf",
    "/etc/pip.conf",
    "/etc/ssl/certs/ca-certificates.crt",
    // From here the package ca-certificates would make the file before anew.
    "/usr/local/share/ca-certificates",
];

/// Makes the root file system, with these packages besides; what is only needed on the way goes to `scratch`.
pub(super) fn make(
    scratch: &Path,
    root: &Path,
    checkout: &Path,
    packages: &[&str],
) -> anyhow::Result<()> {
    debian::bootstrap(&debian::BOOKWORM, scratch, root, packages)?;
    for path in NETWORK {
        let to = root.join(path.trim_start_matches('/'));
        // Not every machine has all of them.
        if Path::new(path).exists() {
            copy(Path::new(path), &to)?;
        }
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    write(
        &root.join("etc/hosts"),
        &format!("{hosts}\n127.0.1.1 fresh\n"),
    )?;
    rust(root, checkout)?;
    clone(checkout, &root.join("root/quilt-mesh"))
}

/// As rustup's installer would leave it: the toolchain in use and no other, without its documentation and sources.
fn rust(root: &Path, checkout: &Path) -> anyhow::Result<()> {
    let sysroot = answer(
        Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(checkout),
    )
    .context("cannot ask rustc for its folder")?;
    let sysroot = PathBuf::from(sysroot.trim());
    let (Some(rustup), Some(name)) = (program("rustup"), sysroot.file_name()) else {
        bail!(
            "rustup is missing, which a newcomer is told to install: its toolchain goes into the bare Debian. Install it \
             from https://rustup.rs"
        );
    };
    let home = root.join("root/.rustup");
    let toolchain = home.join("toolchains").join(name);
    for part in ["bin", "etc", "lib", "libexec"] {
        let from = sysroot.join(part);
        if from.exists() {
            copy(&from, &toolchain.join(part))?;
        }
    }
    // A component that the default profile does not have, and with which the eBPF programs would be built otherwise.
    let sources = toolchain.join("lib/rustlib/src");
    if sources.exists() {
        std::fs::remove_dir_all(&sources)
            .with_context(|| format!("cannot remove {}", sources.display()))?;
    }
    let name = name.to_string_lossy();
    write(
        &home.join("settings.toml"),
        &format!("version = \"12\"\ndefault_toolchain = \"{name}\"\nprofile = \"default\"\n"),
    )?;

    let cargo = root.join("root/.cargo");
    copy(&rustup, &cargo.join("bin/rustup"))?;
    for proxy in PROXIES {
        std::os::unix::fs::symlink("rustup", cargo.join("bin").join(proxy))
            .with_context(|| format!("cannot make a link for {proxy}"))?;
    }
    let configuration = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    for name in ["config.toml", "config"] {
        let from = configuration.iter().map(|dir| dir.join(name));
        for from in from.filter(|from| from.is_file()) {
            copy(&from, &cargo.join(name))?;
        }
    }
    Ok(())
}

/// The checkout as it is committed.
fn clone(checkout: &Path, to: &Path) -> anyhow::Result<()> {
    let changes = answer(
        Command::new("git")
            .args(["status", "--porcelain"])
            .current_dir(checkout),
    )?;
    match changes.lines().count() {
        0 => {}
        count => eprintln!("{count} files that are not committed are left out"),
    }
    let mut clone = Command::new("git");
    clone
        // Hard links would make them the same files.
        .args(["clone", "--quiet", "--no-hardlinks", "--"])
        .arg(checkout)
        .arg(to);
    finish(clone)
}

/// A file, or a folder with all that is in it. A link at `from` itself is followed.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let mut copy = Command::new("cp");
    copy.args(["-a", "-H", "-T", "--"]).arg(from).arg(to);
    finish(copy)
}
