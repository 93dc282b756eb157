//! The root file system of a bare Debian 12.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::{finish, program};

/// For each step; forty megabytes to download are the longest.
pub(super) const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Debian 12's name.
const RELEASE: &str = "bookworm";

/// Where Debian's packages come from if apt here has another distribution's.
const MIRROR: &str = "\
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
";

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
    bootstrap(scratch, root, packages)?;
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

/// Debian's essential packages, apt, and these packages.
fn bootstrap(scratch: &Path, root: &Path, packages: &[&str]) -> anyhow::Result<()> {
    eprintln!("making a bare Debian 12");
    let targets = answer(
        Command::new("apt-get")
            .args([
                "indextargets",
                "--format",
                "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            ])
            .args(["Created-By: Packages", "Origin: Debian"]),
    );
    let settings = answer(Command::new("apt-config").arg("dump"));
    let list = scratch.join("debian.list");
    let options = scratch.join("apt.conf");
    write(&list, &sources(&targets.unwrap_or_default()))?;
    write(&options, &apt_options(&settings.unwrap_or_default()))?;
    let mut debian = Command::new("mmdebstrap");
    debian
        .args(["--quiet", "--mode=root", "--variant=minbase"])
        .arg(format!("--aptopt={}", options.display()))
        .args(
            packages
                .iter()
                .map(|package| format!("--include={package}")),
        )
        .arg(RELEASE)
        .arg(root)
        .arg(list);
    finish(debian)
}

/// Debian 12's sources as apt here has them, in the format of sources.list(5).
fn sources(targets: &str) -> String {
    let mut sources = String::new();
    let mut has_release = false;
    for line in targets.lines() {
        if let [uri, release, component] = line.split_whitespace().collect::<Vec<_>>()[..]
            && [RELEASE, "bookworm-updates", "bookworm-security"].contains(&release)
        {
            has_release |= release == RELEASE;
            // Writing to a string cannot fail.
            let _ = writeln!(sources, "deb {uri} {release} {component}");
        }
    }
    if has_release {
        sources
    } else {
        MIRROR.to_owned()
    }
}

/// Those of apt's settings that say how packages are fetched.
fn apt_options(dump: &str) -> String {
    let beginnings = [
        "Acquire::http",
        "Acquire::Retries",
        "Acquire::Check-",
        "Acquire::ForceIPv",
    ];
    let matters = |line: &&str| {
        beginnings.iter().any(|it| line.starts_with(it))
            // A program that is not there inside.
            && !line.contains("Auto-Detect")
            && !line.ends_with(" \"\";")
    };
    dump.lines()
        .filter(matters)
        .map(|line| format!("{line}\n"))
        .collect()
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

/// What a program of this machine prints.
fn answer(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_sources_are_those_of_the_machine_if_it_has_any() {
        let targets = "http://mirror.example/debian/ bookworm main\n\
             http://mirror.example/debian-security/ bookworm-security main\n\
             http://mirror.example/debian/ trixie main\n";
        assert_eq!(
            sources(targets),
            "deb http://mirror.example/debian/ bookworm main\n\
             deb http://mirror.example/debian-security/ bookworm-security main\n"
        );
        assert_eq!(
            sources("http://mirror.example/debian/ trixie main\n"),
            MIRROR
        );
    }

    #[test]
    fn only_how_packages_are_fetched_is_taken_from_apts_settings() {
        let dump = "APT::Architecture \"amd64\";\n\
             Acquire::http::Proxy \"http://proxy.example:3128/\";\n\
             Acquire::http::Proxy-Auto-Detect \"/usr/bin/proxy\";\n\
             Acquire::http \"\";\n\
             Acquire::Check-Date \"false\";\n\
             Dir::Cache \"var/cache/apt/\";\n";
        assert_eq!(
            apt_options(dump),
            "Acquire::http::Proxy \"http://proxy.example:3128/\";\nAcquire::Check-Date \"false\";\n"
        );
    }
}
