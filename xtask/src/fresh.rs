//! `cargo xtask fresh`
//!
//! Shows that the other commands install what they need: they run where none of it was there before. The machine's own
//! root stays as it is; all that is mounted is mounted in a namespace that ends with the command.

mod root;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Context as _;

use crate::foreground::{self, Reach};
use crate::setup::{self, Tool, require_root};
use crate::{cargo, debian, setup::find};

/// Run a command on a bare Debian 12, with the checkout as it is committed
///
/// Makes a root file system of Debian's essential packages and apt, with a copy of the Rust toolchain in use and a clone
/// of this checkout, and runs the command there, in namespaces of its own for mounts and processes. A command that begins
/// with cargo gets a C compiler as well, without which Rust links nothing; .ci/run brings its own. How apt, cargo and pip
/// reach their registries is taken from this machine, passwords and tokens are not. The network is the machine's.
/// Removes everything at the end, also after Ctrl-C. Needs root, and some 10 GB for .ci/run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave the root file system there, and print where
    #[arg(long, env = "QUILT_MESH_KEEP")]
    keep: bool,

    /// What to run in the checkout; .ci/run if nothing is given
    #[arg(last = true)]
    command: Vec<String>,
}

/// What runs inside, before the command.
const INSIDE: &str = include_str!("fresh.sh");

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    require_root("fresh")?;
    setup::ensure(&[Tool::Bootstrap, Tool::Git])?;
    // Between two steps a signal waits for the next, so that what was made is always removed.
    let _shield = foreground::Shield::raise()?;
    let checkout = cargo::checkout()?;
    let all = checkout.target_dir.join("fresh");
    remove_leftovers(&all)?;
    let place = Place::new(&all)?;
    let outcome = enter(&place, &checkout.root, options);
    if options.keep {
        place.keep()?;
        eprintln!(
            "left: {}\nremove it with: rm -rf --one-file-system {}",
            place.root().display(),
            place.dir.display()
        );
        return outcome;
    }
    match (outcome, place.remove()) {
        (outcome, Ok(())) => outcome,
        (Ok(_), Err(error)) => Err(error),
        (Err(outcome), Err(error)) => {
            eprintln!("error: {error:#}");
            Err(outcome)
        }
    }
}

/// Makes the root file system and runs the command in it.
fn enter(place: &Place, checkout: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let ci = [".ci/run".to_owned()];
    let words = match &options.command[..] {
        [] => &ci[..],
        words => words,
    };
    let started = Instant::now();
    let packages = match words.first().map(String::as_str) {
        // xtask itself could not be compiled.
        Some("cargo") => Tool::CCompiler.packages(),
        _ => &[],
    };
    root::make(&place.dir, &place.root(), checkout, packages)?;
    eprintln!(
        "a bare Debian 12 is made, {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let ended = foreground::run(&mut inside(&place.root(), words), Reach::Group, None)?;
    eprintln!(
        "\n`{}` on a bare Debian 12: {ended} after {:.1} s",
        words.join(" "),
        started.elapsed().as_secs_f64()
    );
    Ok(ended.code())
}

/// The command in its namespaces.
fn inside(root: &Path, words: &[String]) -> Command {
    // Whoever kills xtask kills unshare, and unshare's end process 1, and with it everything inside.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(["--mount", "--propagation", "private", "--pid", "--uts"])
        .args(["--ipc", "--fork", "--kill-child=KILL", "--"])
        .args(["/bin/sh", "-euc", INSIDE, "fresh"])
        .arg(root)
        .args(words)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_passed)))
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env(
            "PATH",
            "/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
    command
}

/// Whether a variable of the environment is needed to reach a registry, or describes the terminal. Tokens are not
/// needed to read.
fn is_passed(name: &str) -> bool {
    const NAMES: [&str; 3] = ["TERM", "NO_COLOR", "RUSTUP_UPDATE_ROOT"];
    const BEGINNINGS: [&str; 7] = [
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "PIP_",
        "RUSTUP_DIST_",
    ];
    let known = NAMES.contains(&name)
        || BEGINNINGS.iter().any(|it| name.starts_with(it))
        || name.to_ascii_lowercase().ends_with("_proxy");
    known && !name.ends_with("_TOKEN")
}

/// A folder with a root file system. The kernel gives the lock back however this process ends, so that the next one
/// knows what nobody uses any more.
struct Place {
    dir: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";

impl Place {
    fn new(all: &Path) -> anyhow::Result<Self> {
        let dir = all.join(std::process::id().to_string());
        let failed = || format!("cannot create {}", dir.display());
        std::fs::create_dir_all(&dir).with_context(failed)?;
        let lock = File::create(dir.join(LOCK)).with_context(failed)?;
        lock.lock().with_context(failed)?;
        Ok(Self { dir, _lock: lock })
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Without a lock it is no leftover.
    fn keep(&self) -> anyhow::Result<()> {
        let lock = self.dir.join(LOCK);
        std::fs::remove_file(&lock).with_context(|| format!("cannot remove {}", lock.display()))
    }

    fn remove(self) -> anyhow::Result<()> {
        debian::remove(&self.dir)
    }
}

/// Removes what processes left that were killed. What was to be kept has no lock.
fn remove_leftovers(all: &Path) -> anyhow::Result<()> {
    // It may not be there yet.
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let lock = File::open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            eprintln!("removing {}, left behind", entry.path().display());
            debian::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A program of this machine.
fn program(name: &str) -> Option<PathBuf> {
    find(name, std::env::var_os("PATH").as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_registries_is_passed_and_nothing_else() {
        for name in [
            "https_proxy",
            "NO_PROXY",
            "PIP_CERT",
            "CARGO_NET_RETRY",
            "TERM",
        ] {
            assert!(is_passed(name), "{name}");
        }
        for name in [
            "CARGO_REGISTRIES_INTERNAL_TOKEN",
            "CARGO_HOME",
            "RUSTUP_TOOLCHAIN",
            "QUILT_MESH_KEEP",
            "HOME",
        ] {
            assert!(!is_passed(name), "{name}");
        }
    }
}
