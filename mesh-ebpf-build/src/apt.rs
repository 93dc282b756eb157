//! Compilers that Debian and Ubuntu package together with a `core` for the BPF target.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Error;
use crate::command::{answer, is_root, on_path};
use crate::rustc::Release;

/// Debian 12's names, suggested where apt cannot be asked.
const DEFAULT: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Package lists are tens of megabytes, the compiler and its LLVM a hundred.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// What apt can do about a missing compiler.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// This process may install these.
    Install(Vec<String>),
    /// Somebody with more rights, or on another distribution, may.
    Suggest(Vec<String>),
}

/// Asks apt which packages would help, with fresh lists where this process may fetch them: a new machine's
/// lists are empty.
pub(crate) fn offer(dir: &Path, oldest: Release) -> Result<Offer, Error> {
    let default = || DEFAULT.map(str::to_owned).to_vec();
    if on_path("apt-get").is_none() {
        return Ok(Offer::Suggest(default()));
    }
    if is_root() {
        apt_get(&["update"], dir)?;
    }
    let packages = choose(&available(), oldest);
    Ok(match packages {
        Some(packages) if is_root() => Offer::Install(packages),
        packages => Offer::Suggest(packages.unwrap_or_else(default)),
    })
}

/// Installs Debian packages, after fetching the package lists. Needs root. apt's messages go to `apt.log` in
/// `dir`.
///
/// # Errors
///
/// [`Error::Apt`], which names the log, and what [`Error`] says of programs that do not start or end.
pub fn install_packages(packages: &[String], dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|source| Error::io("create", dir, source))?;
    apt_get(&["update"], dir)?;
    let Err(error) = install(packages, dir) else {
        return Ok(());
    };
    // A package that came from elsewhere, from backports for example, may be too new to stand beside these. It stays, in
    // the version that belongs to them.
    let in_the_way = in_the_way(packages);
    if in_the_way.is_empty() {
        return Err(error);
    }
    let mut arguments = vec![
        "install",
        "--yes",
        "--no-install-recommends",
        "--no-remove",
        "--allow-downgrades",
    ];
    arguments.extend(packages.iter().chain(&in_the_way).map(String::as_str));
    apt_get(&arguments, dir)
}

/// What apt would remove for these packages, each with the newest version that the archives have of it. None, if one has
/// no such version.
fn in_the_way(packages: &[String]) -> Vec<String> {
    let mut simulation = Command::new("apt-get");
    simulation.args(["--simulate", "--yes", "--no-install-recommends", "install"]);
    let plan = answer(simulation.args(packages)).unwrap_or_default();
    let versions = removed(&plan).into_iter().map(|name| {
        let known = answer(Command::new("apt-cache").args(["madison", name]))?;
        Some(format!("{name}={}", newest(&known)?))
    });
    versions.collect::<Option<_>>().unwrap_or_default()
}

/// The names in the lines of a simulation that say "Remv NAME [VERSION] …".
fn removed(plan: &str) -> Vec<&str> {
    let lines = plan.lines();
    lines
        .filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next())
        .collect()
}

/// The version in the first line of what `apt-cache madison` says: "NAME | VERSION | ARCHIVE".
fn newest(known: &str) -> Option<&str> {
    known.lines().next()?.split('|').nth(1).map(str::trim)
}

/// Installs without what apt would add by recommendation, and never at the price of a removal: Debian's
/// `rustc-web` conflicts with `rustc`, and somebody may need the latter.
pub(crate) fn install(packages: &[String], dir: &Path) -> Result<(), Error> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends", "--no-remove"];
    arguments.extend(packages.iter().map(String::as_str));
    apt_get(&arguments, dir)
}

fn apt_get(arguments: &[&str], dir: &Path) -> Result<(), Error> {
    let log = dir.join("apt.log");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|source| Error::io("open", &log, source))?;
    let stderr = file
        .try_clone()
        .map_err(|source| Error::io("open", &log, source))?;
    let mut command = Command::new("apt-get");
    command
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(file)
        .stderr(Stdio::from(stderr));
    let status = crate::command::wait(&mut command, DEADLINE)?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Apt {
            command: crate::command::shown(&command),
            log,
        })
    }
}

/// Name and candidate version of every package with a BPF `core` that apt knows.
fn available() -> Vec<(String, String)> {
    let names =
        answer(Command::new("apt-cache").args(["pkgnames", "libstd-rust"])).unwrap_or_default();
    names
        .lines()
        .filter(|name| name.ends_with("-dev-bpf"))
        .filter_map(|name| {
            let policy = answer(
                Command::new("apt-cache")
                    .args(["policy", name])
                    .env("LC_ALL", "C"),
            )?;
            let version = policy
                .lines()
                .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
            Some((name.to_owned(), version.to_owned()))
        })
        .collect()
}

/// The newest compiler that is new enough, as the packages to install. `libstd-rust-web-dev-bpf` belongs to
/// `rustc-web`, `libstd-rust-1.95-dev-bpf` to `rustc-1.95`, `libstd-rust-dev-bpf` to `rustc`.
fn choose(available: &[(String, String)], oldest: Release) -> Option<Vec<String>> {
    let (_, flavour, library) = available
        .iter()
        .filter_map(|(name, version)| {
            let flavour = name.strip_prefix("libstd-rust")?.strip_suffix("-dev-bpf")?;
            let upstream = version
                .rsplit_once(':')
                .map_or(version.as_str(), |(_epoch, rest)| rest);
            let release = Release::parse(upstream.split(['~', '-', '+']).next()?)?;
            (release >= oldest).then_some((release, flavour, name))
        })
        .max()?;
    Some(vec![format!("rustc{flavour}"), library.clone()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available(packages: &[(&str, &str)]) -> Vec<(String, String)> {
        packages
            .iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
            .collect()
    }

    #[test]
    fn what_would_be_removed_and_the_version_that_stays_are_read_as_apt_says_them() {
        let plan = "Remv qemu-utils [1:10.0.2+ds-2~bpo12+1]\nInst seabios (1.16.2-1 Debian:12.9/oldstable [all])\n\
                    Conf seabios (1.16.2-1 Debian:12.9/oldstable [all])\n";
        assert_eq!(removed(plan), ["qemu-utils"]);
        assert!(removed("Inst seabios (1.16.2-1)\n").is_empty());
        let known = "qemu-utils | 1:7.2+dfsg-7+deb12u18+b3 | http://archive bookworm/main amd64 Packages\n\
                     qemu-utils | 1:7.2+dfsg-7+deb12u15 | http://archive bookworm-security/main amd64 Packages\n";
        assert_eq!(newest(known), Some("1:7.2+dfsg-7+deb12u18+b3"));
        assert_eq!(newest(""), None);
    }

    const OLDEST: Release = Release(1, 95, 0);

    #[test]
    fn debian_12_offers_the_compiler_of_its_web_browsers() {
        let debian = available(&[("libstd-rust-web-dev-bpf", "1.96.0+dfsg1-1~deb12u2")]);
        assert_eq!(choose(&debian, OLDEST).unwrap(), DEFAULT);
    }

    #[test]
    fn the_newest_of_several_is_taken_and_brings_the_compiler_it_belongs_to() {
        let several = available(&[
            ("libstd-rust-dev-bpf", "1.85.0+dfsg3-1"),
            ("libstd-rust-1.100-dev-bpf", "2:1.100.0+dfsg-0ubuntu1"),
            ("libstd-rust-1.99-dev-bpf", "1.99.0+dfsg-0ubuntu1"),
        ]);
        assert_eq!(
            choose(&several, OLDEST).unwrap(),
            ["rustc-1.100", "libstd-rust-1.100-dev-bpf"]
        );
    }

    #[test]
    fn a_compiler_older_than_the_workspace_needs_is_not_offered() {
        assert_eq!(
            choose(
                &available(&[("libstd-rust-dev-bpf", "1.85.0+dfsg3-1")]),
                OLDEST
            ),
            None
        );
        assert_eq!(
            choose(&available(&[("libstd-rust-dev-bpf", "(none)")]), OLDEST),
            None
        );
    }
}
