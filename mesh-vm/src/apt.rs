//! What apt knows: this machine's, or lists of our own for other releases of Debian.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Error, Result},
    package::file,
};

/// Where kernels are that Debian 12 does not have: Debian 11's, in the archive of its security
/// support, which also holds every later version, and the newest, in Debian 13's backports.
/// The first is no longer renewed, so that the date up to which it is valid has passed.
const RELEASES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no] http://deb.debian.org/debian-security bullseye-security main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie-backports main
";

/// What is asked for packages.
#[derive(Clone, Debug)]
pub(crate) struct Apt {
    /// In which it runs.
    dir: PathBuf,
    /// What it is told beside this machine's settings; `None` for this machine's own lists.
    settings: Option<PathBuf>,
}

impl Apt {
    /// This machine's own.
    pub(crate) fn machine(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            settings: None,
        }
    }

    /// Other releases of Debian, with lists below `dir` that are read by [`Apt::update`]. How
    /// archives are reached is taken from this machine's settings; its sources, lists and
    /// packages stay as they are.
    pub(crate) fn releases(dir: &Path) -> Result<Self> {
        let own = dir.join("apt");
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = own.join(folder);
            fs::create_dir_all(&folder).map_err(|source| file("create", &folder, source))?;
        }
        // apt reads relative paths from its root.
        let own = fs::canonicalize(&own).map_err(|source| file("find", &own, source))?;
        let settings = own.join("apt.conf");
        let shown = own.display();
        let content = format!(
            "Dir::Etc::sourcelist \"{shown}/sources.list\";\n\
             Dir::Etc::sourceparts \"-\";\n\
             Dir::State::lists \"{shown}/lists\";\n\
             Dir::State::status \"{shown}/status\";\n\
             Dir::Cache \"{shown}/cache\";\n\
             Acquire::Languages \"none\";\n"
        );
        for (name, content) in [
            ("apt.conf", content.as_str()),
            ("sources.list", RELEASES),
            // Nothing is installed.
            ("status", ""),
        ] {
            let path = own.join(name);
            fs::write(&path, content).map_err(|source| file("create", &path, source))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            settings: Some(settings),
        })
    }

    /// Reads the lists anew.
    pub(crate) fn update(&self) -> Result<()> {
        self.run("apt-get", &["-qq", "-o", AS_THIS_USER, "update"])
            .map(drop)
            .map_err(|reason| not_had("apt's lists", reason))
    }

    /// Names of packages, also of those that others only mention.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let listed = self.run("apt-cache", &["pkgnames", prefix])?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// The version of a package that apt would install; `None` for a name without a package.
    pub(crate) fn candidate(&self, package: &str) -> Result<Option<String>> {
        let policy = self.run("apt-cache", &["policy", package])?;
        Ok(parse_candidate(&policy).map(str::to_owned))
    }

    /// Downloads a package into the folder `into` and returns the file.
    pub(crate) fn download(&self, package: &str, version: &str, into: &Path) -> Result<PathBuf> {
        let wanted = format!("{package}={version}");
        let arguments = ["-qq", "-o", AS_THIS_USER, "download", &wanted];
        run("apt-get", &arguments, into, self.settings.as_deref())
            .map_err(|reason| not_had(&wanted, reason))?;
        fs::read_dir(into)
            .map_err(|source| file("read", into, source))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|it| it == "deb"))
            .ok_or_else(|| Error::Missing {
                what: format!("{package}_….deb"),
                dir: into.to_owned(),
            })
    }

    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<String> {
        run(program, arguments, &self.dir, self.settings.as_deref())
    }
}

/// As root apt would otherwise download as a user who may not write here.
const AS_THIS_USER: &str = "APT::Sandbox::User=root";

fn not_had(package: &str, reason: Error) -> Error {
    Error::Download {
        package: package.to_owned(),
        reason: Box::new(reason),
    }
}

fn parse_candidate(policy: &str) -> Option<&str> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
}

/// Runs a program to its end in `dir` and returns what it prints. Programs of apt's read
/// `settings` before this machine's (apt.conf(5), `APT_CONFIG`).
pub(crate) fn run(
    program: &'static str,
    arguments: &[&str],
    dir: &Path,
    settings: Option<&Path>,
) -> Result<String> {
    let package = match program {
        "depmod" => "kmod",
        "dpkg-deb" => "dpkg",
        _ => "apt",
    };
    fs::create_dir_all(dir).map_err(|source| file("create", dir, source))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    if let Some(settings) = settings {
        command.env("APT_CONFIG", settings);
    }
    let output = command
        .args(arguments)
        .current_dir(dir)
        // Its words are read.
        .env("LC_ALL", "C")
        // Users' paths often leave the system's folders out.
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .map_err(|source| Error::Start {
            program,
            package,
            source,
        })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Command {
            command: format!("{program} {}", arguments.join(" ")),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_package_has_no_candidate() {
        let policy = "linux-image-6.1.0-56-cloud-amd64:\n  Installed: (none)\n  Candidate: 6.1.192-2\n  Version table:\n";
        assert_eq!(parse_candidate(policy), Some("6.1.192-2"));
        assert_eq!(
            parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let error = run("no-such-program", &[], dir.path(), None).unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }

    #[test]
    fn lists_of_other_releases_leave_this_machines_alone() {
        let dir = tempfile::tempdir().unwrap();
        let apt = Apt::releases(dir.path()).unwrap();
        let settings = fs::read_to_string(apt.settings.unwrap()).unwrap();
        let own = fs::canonicalize(dir.path()).unwrap();
        for setting in ["Etc::sourcelist", "State::lists", "State::status", "Cache"] {
            let wanted = format!("Dir::{setting} \"{}", own.display());
            assert!(settings.contains(&wanted), "{setting}: {settings}");
        }
    }
}
