//! `cargo xtask fresh`
//!
//! Shows that the other commands install what they need: they run where none of it was there before. The machine's own
//! root stays as it is; all that is mounted is mounted in a namespace that ends with the command.

mod root;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail};
use nix::mount::umount;

use crate::foreground::{self, Reach};
use crate::setup::{self, Tool, require_root};
use crate::{cargo, setup::find};

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
        remove(&self.dir)
    }
}

/// Removes what processes left that were killed. What was to be kept has no lock.
fn remove_leftovers(all: &Path) -> anyhow::Result<()> {
    // It may not be there yet.
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let lock = File::open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            eprintln!("removing {}, left behind", entry.path().display());
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Unmounts what is mounted below the folder, and removes it only then: nothing that belongs to somebody else may be
/// reached through it.
fn remove(dir: &Path) -> anyhow::Result<()> {
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

/// Runs a program to its end; what it prints goes to standard error.
fn finish(mut command: Command) -> anyhow::Result<()> {
    command.stdout(std::io::stderr());
    let program = command.get_program().to_string_lossy().into_owned();
    let ended =
        foreground::run(&mut command, Reach::Group, Some(root::DEADLINE))?.unless_interrupted()?;
    if !ended.success() {
        bail!("{program} {ended}; its messages are above");
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
