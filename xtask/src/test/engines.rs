//! `cargo xtask test --engines`

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mesh_ebpf_build::Checkout;

use super::suite::Suite;
use super::{Options, Summary, THREADS, compile, execute};
use crate::cargo;
use crate::debian::{self, FORKY, Release, TRIXIE};
use crate::foreground::Shield;
use crate::setup::{self, Tool, require_root};

/// What tests run in root file systems of other distributions than the machine's.
const DISTRIBUTIONS: [Distribution; 2] = [
    Distribution {
        release: TRIXIE,
        packages: &ENGINES,
        tests_of: &["mesh-netavark", "mesh-testbed"],
    },
    // Its plugins are the first that speak version 1.1 of CNI.
    Distribution {
        release: FORKY,
        packages: &ENGINES,
        tests_of: &["mesh-cni", "mesh-netavark", "mesh-testbed"],
    },
];

/// containerd, Docker and Podman, and what a runtime and its plugins need on their host. Nothing starts Docker's daemon: there is
/// no init system inside.
const ENGINES: [&str; 10] = [
    "containerd",
    "runc",
    "docker.io",
    "docker-cli",
    "docker-compose",
    "containernetworking-plugins",
    "iptables",
    "nftables",
    "podman",
    "netavark",
];

/// A distribution, with the engines that are tried.
struct Distribution {
    release: Release,
    /// Besides the essential ones.
    packages: &'static [&'static str],
    /// The packages of ours whose tests run in it.
    tests_of: &'static [&'static str],
}

/// What the tests need on this machine.
const TOOLS: [Tool; 6] = [
    Tool::CCompiler,
    Tool::Iproute,
    Tool::Nftables,
    Tool::Iptables,
    Tool::Busybox,
    Tool::Bootstrap,
];

/// What is compiled for them: the tests, and the programs that they start.
const PROGRAMS: [&str; 18] = [
    "--package=mesh-testbed",
    "--package=mesh-cni",
    "--package=mesh-docker",
    "--package=mesh-netavark",
    "--package=mesh-control",
    "--package=mesh-agent",
    "--package=mesh-runtime",
    "--package=mesh-ctl",
    "--test=distributions",
    "--bin=quilt-cni",
    "--bin=quilt-docker",
    "--bin=quilt-netavark",
    "--bin=quilt-mesh-control",
    "--bin=quilt-mesh-agent",
    "--bin=quilt-runtime",
    "--bin=meshctl",
    "--locked",
    "--message-format=json-render-diagnostics",
];

/// Each of these tests has two hosts, with an engine on each.
const AT_ONCE: &str = "2";

/// Somebody else makes a root file system, or runs tests in it, for no longer.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

/// By which tests and benchmarks know the distribution.
pub(crate) const CHOSEN: &str = "QUILT_MESH_DISTRIBUTION";

/// Where root file systems are kept, below the target directory.
const ALL: &str = "distributions";

/// A file beside the root file system that says what is in it.
const MADE_OF: &str = "made-of";

/// A root file system that nobody makes anew for as long as this value is there.
pub(crate) struct Held {
    /// By which Debian knows the distribution, and benchmarks do.
    pub(crate) suite: &'static str,
    _lock: File,
}

/// The root file system with Podman 5 and netavark, made if it is not there.
pub(crate) fn ensure_podman(checkout: &Checkout) -> anyhow::Result<Held> {
    // Debian 13.
    let [distribution, _] = &DISTRIBUTIONS;
    let lock = distribution.ensure(&checkout.target_dir.join(ALL))?;
    Ok(Held {
        suite: distribution.release.suite,
        _lock: lock,
    })
}

/// Runs the tests of engines and plugins of other distributions.
pub(super) fn collect(options: &Options) -> anyhow::Result<Summary> {
    require_root("test --engines")?;
    setup::ensure(&TOOLS)?;
    let checkout = cargo::checkout()?;
    let all = checkout.target_dir.join(ALL);
    let mut suites = compile(&checkout, &PROGRAMS)?;
    suites.retain(Suite::is_of_distributions);
    let mut summary = Summary::default();
    for distribution in &DISTRIBUTIONS {
        let name = distribution.release.name;
        let _held = distribution.ensure(&all)?;
        eprintln!("\n{name}: {}", distribution.versions(&all)?);
        for package in distribution.tests_of {
            if !suites.iter().any(|suite| suite.package == *package) {
                bail!("{package} has no tests named distributions for {name}");
            }
        }
        let of_it = |suite: &&Suite| distribution.tests_of.contains(&&*suite.package);
        for suite in suites.iter().filter(of_it) {
            let mut command = suite.command();
            // Everybody else passes them over.
            command
                .arg("--include-ignored")
                .env(CHOSEN, distribution.release.suite);
            if std::env::var_os(THREADS).is_none() {
                command.env(THREADS, AT_ONCE);
            }
            command.args(&options.filter).args(&options.arguments);
            let suite = format!("{suite}, {name}");
            summary.results.push(execute(&suite, command)?);
        }
    }
    Ok(summary)
}

impl Distribution {
    fn dir(&self, all: &Path) -> PathBuf {
        all.join(self.release.suite)
    }

    /// What it is made of, as it is written beside it.
    fn made_of(&self) -> String {
        format!("{} {}\n", self.release.suite, self.packages.join(" "))
    }

    fn is_made(&self, all: &Path) -> bool {
        let written = std::fs::read_to_string(self.dir(all).join(MADE_OF));
        written.is_ok_and(|it| it == self.made_of())
    }

    /// Makes its root file system, unless that is there already. While the file that is returned is open, nobody makes it
    /// anew.
    fn ensure(&self, all: &Path) -> anyhow::Result<File> {
        std::fs::create_dir_all(all).with_context(|| format!("cannot create {}", all.display()))?;
        let path = all.join(format!("{}.lock", self.release.suite));
        let lock = File::create(&path);
        let lock = lock.with_context(|| format!("cannot create {}", path.display()))?;
        let deadline = Instant::now() + PATIENCE;
        // A lock for all is no lock for one: between the two somebody else may have been here.
        loop {
            acquire(|| lock.try_lock_shared(), &path, deadline)?;
            if self.is_made(all) {
                return Ok(lock);
            }
            lock.unlock().context("cannot unlock")?;
            acquire(|| lock.try_lock(), &path, deadline)?;
            if !self.is_made(all) {
                self.make(all)?;
            }
            lock.unlock().context("cannot unlock")?;
        }
    }

    /// Whole or not at all.
    fn make(&self, all: &Path) -> anyhow::Result<()> {
        // Between two steps a signal waits for the next, so that half a root file system is always removed.
        let _shield = Shield::raise()?;
        let started = Instant::now();
        let dir = self.dir(all);
        let new = dir.with_extension("new");
        for left in [&new, &dir] {
            if left.exists() {
                debian::remove(left)?;
            }
        }
        std::fs::create_dir_all(&new)
            .with_context(|| format!("cannot create {}", new.display()))?;
        let outcome = debian::bootstrap(&self.release, &new, &new.join("root"), self.packages)
            .and_then(|()| debian::write(&new.join(MADE_OF), &self.made_of()))
            .and_then(|()| {
                let made = std::fs::rename(&new, &dir);
                made.with_context(|| format!("cannot create {}", dir.display()))
            });
        if let Err(error) = outcome {
            if let Err(left) = debian::remove(&new) {
                eprintln!("error: {left:#}");
            }
            return Err(error);
        }
        eprintln!(
            "{} is made, {:.1} s; it stays below {}",
            self.release.name,
            started.elapsed().as_secs_f64(),
            dir.display()
        );
        Ok(())
    }

    /// Its packages as they are there.
    fn versions(&self, all: &Path) -> anyhow::Result<String> {
        let admin = self.dir(all).join("root/var/lib/dpkg");
        let mut query = Command::new("dpkg-query");
        query
            .arg(format!("--admindir={}", admin.display()))
            .args(["--show", "--showformat=${Package} ${Version}, "])
            .args(self.packages);
        Ok(debian::answer(&mut query)?
            .trim_end_matches(", ")
            .to_owned())
    }
}

/// Takes a lock that somebody else may have.
fn acquire(
    attempt: impl Fn() -> Result<(), TryLockError>,
    path: &Path,
    deadline: Instant,
) -> anyhow::Result<()> {
    let mut is_told = false;
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                bail!("somebody else has had {} for too long", path.display());
            }
            Err(TryLockError::WouldBlock) => {
                if !is_told {
                    eprintln!("waiting for somebody else, who has {}", path.display());
                }
                is_told = true;
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_file_system_is_made_anew_when_the_list_of_its_packages_changes() {
        let all = std::env::temp_dir().join(format!("quilt-mesh-engines-{}", std::process::id()));
        let before = Distribution {
            release: FORKY,
            packages: &["containerd"],
            tests_of: &[],
        };
        let after = Distribution {
            release: FORKY,
            packages: &["containerd", "runc"],
            tests_of: &[],
        };
        std::fs::create_dir_all(before.dir(&all)).unwrap();
        let nothing = before.is_made(&all);
        debian::write(&before.dir(&all).join(MADE_OF), &before.made_of()).unwrap();
        let [same, other] = [&before, &after].map(|it| it.is_made(&all));
        std::fs::remove_dir_all(&all).unwrap();
        assert_eq!([nothing, same, other], [false, true, false]);
    }
}
