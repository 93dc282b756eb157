//! Debian packages that are downloaded and unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::geteuid;

use crate::{
    error::{Error, Result},
    series::Series,
};

/// Where packages are unpacked, one folder for each version, and kept.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// A kernel, unpacked, its modules indexed.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What `uname -r` will say.
    pub release: String,
    /// The image to boot.
    pub image: PathBuf,
    /// The folder with the modules and their indexes.
    pub modules: PathBuf,
}

impl Cache {
    /// Packages are unpacked in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The newest kernel of the series that apt knows of. As root, apt is made to look anew if
    /// it knows of none, or of one that is no longer there.
    ///
    /// # Errors
    ///
    /// [`Error::NoKernel`], or that it could not be downloaded or unpacked.
    pub fn kernel(&self, series: Series) -> Result<Kernel> {
        match self.known_kernel(series) {
            Err(error @ (Error::NoKernel(_) | Error::Download { .. })) if geteuid().is_root() => {
                eprintln!("{error}\nreading apt's lists anew with apt-get update");
                run("apt-get", &["-qq", "update"], &self.dir)
                    .map_err(|reason| not_had("apt's lists", reason))?;
                self.known_kernel(series)
            }
            other => other,
        }
    }

    fn known_kernel(&self, series: Series) -> Result<Kernel> {
        let prefix = series.package_prefix();
        let listed = run("apt-cache", &["pkgnames", &prefix], &self.dir)?;
        // Other packages' recommendations are names too, and cannot be downloaded.
        let mut known = Vec::new();
        for name in listed.lines() {
            if name.ends_with("-cloud-amd64") && candidate(name, &self.dir)?.is_some() {
                known.push(name);
            }
        }
        let name = series.newest(known).ok_or(Error::NoKernel(series))?;
        let release = name.trim_start_matches("linux-image-").to_owned();
        // A package's own scripts do this when it is installed.
        let root = self.unpacked(name, |tree| {
            run(
                "depmod",
                &["-b", &tree.display().to_string(), &release],
                tree,
            )
            .map(drop)
        })?;
        let kernel = Kernel {
            image: root.join("boot").join(format!("vmlinuz-{release}")),
            modules: root.join("lib/modules").join(&release),
            release,
        };
        for (what, path) in [
            ("bootable image", &kernel.image),
            ("folder of modules", &kernel.modules),
        ] {
            if !path.exists() {
                return Err(Error::Missing {
                    what: format!("{what} {}", path.display()),
                    dir: root,
                });
            }
        }
        Ok(kernel)
    }

    /// A busybox that needs no library.
    ///
    /// # Errors
    ///
    /// That it could not be downloaded or unpacked.
    pub fn busybox(&self) -> Result<PathBuf> {
        let root = self.unpacked("busybox-static", |_| Ok(()))?;
        let found = ["bin/busybox", "usr/bin/busybox"]
            .map(|path| root.join(path))
            .into_iter()
            .find(|path| path.is_file());
        found.ok_or(Error::Missing {
            what: "busybox".to_owned(),
            dir: root,
        })
    }

    /// The folder with the package's content, downloaded and prepared unless that was done
    /// before.
    fn unpacked(
        &self,
        package: &str,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let version = candidate(package, &self.dir)?.ok_or_else(|| Error::Missing {
            what: format!("package {package} (`sudo apt-get update` reads apt's lists anew)"),
            dir: "apt's cache".into(),
        })?;
        // An epoch's colon is no character for a path in an environment variable.
        let root = self
            .dir
            .join(format!("{package}_{}", version.replace(':', "_")));
        if root.exists() {
            return Ok(root);
        }
        eprintln!("downloading {package} {version}");
        let scratch = self.dir.join(format!(".unpacking-{}", std::process::id()));
        let outcome = self.unpack(package, &version, &scratch).and_then(|tree| {
            prepare(&tree)?;
            // Whole or not at all, whenever this is interrupted.
            match fs::rename(&tree, &root) {
                Err(_) if root.exists() => Ok(()),
                other => other.map_err(|source| file("create", &root, source)),
            }
        });
        // What is left of a failure is found by name, and harms nobody.
        let _ = fs::remove_dir_all(&scratch);
        outcome.map(|()| root)
    }

    fn unpack(&self, package: &str, version: &str, scratch: &Path) -> Result<PathBuf> {
        fs::create_dir_all(scratch).map_err(|source| file("create", scratch, source))?;
        let wanted = format!("{package}={version}");
        // As root apt would otherwise download as a user who may not write here.
        let sandbox = "APT::Sandbox::User=root";
        run(
            "apt-get",
            &["-qq", "-o", sandbox, "download", &wanted],
            scratch,
        )
        .map_err(|reason| not_had(&wanted, reason))?;
        let archive = fs::read_dir(scratch)
            .map_err(|source| file("read", scratch, source))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|it| it == "deb"))
            .ok_or_else(|| Error::Missing {
                what: format!("{package}_….deb"),
                dir: scratch.to_owned(),
            })?;
        let tree = scratch.join("tree");
        let (archive, into) = (archive.display().to_string(), tree.display().to_string());
        run("dpkg-deb", &["-x", &archive, &into], scratch)?;
        Ok(tree)
    }
}

fn not_had(package: &str, reason: Error) -> Error {
    Error::Download {
        package: package.to_owned(),
        reason: Box::new(reason),
    }
}

/// The version of a package that apt would install; `None` for a name without a package.
fn candidate(package: &str, dir: &Path) -> Result<Option<String>> {
    let policy = run("apt-cache", &["policy", package], dir)?;
    Ok(parse_candidate(&policy).map(str::to_owned))
}

fn parse_candidate(policy: &str) -> Option<&str> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
}

/// Runs a program to its end in `dir` and returns what it prints.
fn run(program: &'static str, arguments: &[&str], dir: &Path) -> Result<String> {
    let package = match program {
        "depmod" => "kmod",
        "dpkg-deb" => "dpkg",
        _ => "apt",
    };
    fs::create_dir_all(dir).map_err(|source| file("create", dir, source))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
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

pub(crate) fn file(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File {
        action,
        path: path.to_owned(),
        source,
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
        let error = run("no-such-program", &[], dir.path()).unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
