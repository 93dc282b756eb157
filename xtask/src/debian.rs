//! Root file systems of Debian's releases.

mod removal;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::foreground::{self, Reach};

pub(crate) use removal::remove;

/// For each step; a hundred megabytes to download are the longest.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// A release of Debian.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Release {
    /// As people call it.
    pub(crate) name: &'static str,
    /// As its mirrors do.
    pub(crate) suite: &'static str,
    /// Whether there are updates and security updates of it, apart from its packages.
    has_updates: bool,
}

pub(crate) const BOOKWORM: Release = Release {
    name: "Debian 12",
    suite: "bookworm",
    has_updates: true,
};

pub(crate) const TRIXIE: Release = Release {
    name: "Debian 13",
    suite: "trixie",
    has_updates: true,
};

/// Newer packages come to it every day.
pub(crate) const FORKY: Release = Release {
    name: "Debian testing",
    suite: "forky",
    has_updates: false,
};

impl Release {
    /// Its sources as apt here has them, else those of deb.debian.org, in the format of sources.list(5).
    fn sources(&self, targets: &str) -> String {
        let Self {
            suite, has_updates, ..
        } = *self;
        let [updates, security] = ["updates", "security"].map(|it| format!("{suite}-{it}"));
        let mut sources = String::new();
        let mut has_release = false;
        for line in targets.lines() {
            if let [uri, release, component] = line.split_whitespace().collect::<Vec<_>>()[..]
                && [suite, &updates, &security].contains(&release)
            {
                has_release |= release == suite;
                // Writing to a string cannot fail.
                let _ = writeln!(sources, "deb {uri} {release} {component}");
            }
        }
        if has_release {
            return sources;
        }
        let mut sources = format!("deb http://deb.debian.org/debian {suite} main\n");
        if has_updates {
            let _ = write!(
                sources,
                "deb http://deb.debian.org/debian {updates} main\n\
                 deb http://deb.debian.org/debian-security {security} main\n"
            );
        }
        sources
    }
}

/// Makes a root file system of Debian's essential packages, apt, and these packages; what is only needed on the way goes
/// to `scratch`. Needs root, and [`Tool::Bootstrap`](crate::setup::Tool::Bootstrap).
pub(crate) fn bootstrap(
    release: &Release,
    scratch: &Path,
    root: &Path,
    packages: &[&str],
) -> anyhow::Result<()> {
    eprintln!("making a bare {}", release.name);
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
    write(&list, &release.sources(&targets.unwrap_or_default()))?;
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
        .arg(release.suite)
        .arg(root)
        .arg(&list);
    let made = finish(debian);
    // A root file system may be kept, and a proxy's password is nothing to be kept beside it.
    for file in [list, options] {
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    made
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

/// Runs a program to its end; what it prints goes to standard error.
pub(crate) fn finish(mut command: Command) -> anyhow::Result<()> {
    command.stdout(std::io::stderr());
    let program = command.get_program().to_string_lossy().into_owned();
    let ended =
        foreground::run(&mut command, Reach::Group, Some(DEADLINE))?.unless_interrupted()?;
    if !ended.success() {
        bail!("{program} {ended}; its messages are above");
    }
    Ok(())
}

/// What a program of this machine prints.
pub(crate) fn answer(command: &mut Command) -> anyhow::Result<String> {
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

pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
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
            BOOKWORM.sources(targets),
            "deb http://mirror.example/debian/ bookworm main\n\
             deb http://mirror.example/debian-security/ bookworm-security main\n"
        );
        assert_eq!(
            BOOKWORM.sources("http://mirror.example/debian/ trixie main\n"),
            "deb http://deb.debian.org/debian bookworm main\n\
             deb http://deb.debian.org/debian bookworm-updates main\n\
             deb http://deb.debian.org/debian-security bookworm-security main\n"
        );
        assert_eq!(
            FORKY.sources(targets),
            "deb http://deb.debian.org/debian forky main\n"
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
