//! Debian packages that are downloaded and unpacked, never installed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use crate::{
    apt::{Apt, run},
    error::{Error, Result},
    series::Series,
};

/// With what the names of Debian's packages with kernels begin.
const KERNELS: &str = "linux-image-";

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

    /// The newest kernel of the series that this machine's apt knows of, or else of those that
    /// other releases of Debian have. Lists are read anew if none is known, or
    /// one that is no longer there; this machine's only as root.
    ///
    /// # Errors
    ///
    /// [`Error::NoKernel`], or that it could not be downloaded or unpacked.
    pub fn kernel(&self, series: Series) -> Result<Kernel> {
        let machine = Apt::machine(&self.dir);
        let first = self.known_kernel(&machine, series);
        let Err(error @ (Error::NoKernel(_) | Error::Download { .. })) = first else {
            return first;
        };
        let releases = Apt::releases(&self.dir)?;
        // What was read in another run.
        if let Ok(kernel) = self.known_kernel(&releases, series) {
            return Ok(kernel);
        }
        eprintln!("{error}");
        if geteuid().is_root() {
            eprintln!("reading apt's lists anew with apt-get update");
            machine.update()?;
            match self.known_kernel(&machine, series) {
                Err(Error::NoKernel(_)) => {}
                other => return other,
            }
        }
        eprintln!("reading the lists of other releases of Debian");
        releases.update()?;
        self.known_kernel(&releases, series)
    }

    /// The newest series that the backports of Debian have.
    ///
    /// # Errors
    ///
    /// That their lists cannot be read, or hold no kernel.
    pub fn newest(&self) -> Result<Series> {
        let releases = Apt::releases(&self.dir)?;
        releases.update()?;
        let mut series: Vec<_> = releases
            .names(KERNELS)?
            .iter()
            .filter_map(|name| Series::of_package(name))
            .collect();
        series.sort_unstable();
        series.dedup();
        // A name without a package behind it is no kernel.
        for series in series.into_iter().rev() {
            if self.newest_package(&releases, series)?.is_some() {
                return Ok(series);
            }
        }
        Err(Error::NoBackport)
    }

    fn newest_package(&self, apt: &Apt, series: Series) -> Result<Option<String>> {
        let mut known = Vec::new();
        // Other packages' recommendations are names too, and cannot be downloaded.
        for name in apt.names(&series.package_prefix())? {
            if name.ends_with("-cloud-amd64") && apt.candidate(&name)?.is_some() {
                known.push(name);
            }
        }
        Ok(series
            .newest(known.iter().map(String::as_str))
            .map(str::to_owned))
    }

    fn known_kernel(&self, apt: &Apt, series: Series) -> Result<Kernel> {
        let name = self
            .newest_package(apt, series)?
            .ok_or(Error::NoKernel(series))?;
        let release = name.trim_start_matches(KERNELS).to_owned();
        let root = self.unpacked(apt, &name, |unpacking| {
            let tree = unpacking.tree();
            if images(&tree, &release).iter().all(|it| !it.exists()) {
                // Since Linux 7.3 Debian's package names those that hold it, of the same version.
                for part in ["base", "binary", "modules"] {
                    unpacking.add(apt, &format!("linux-{part}-{release}"))?;
                }
            }
            let (lib, merged) = (tree.join("lib"), tree.join("usr/lib"));
            if !lib.exists() && merged.exists() {
                // As on an installed system, and as depmod expects it.
                symlink("usr/lib", &lib).map_err(|source| file("create", &lib, source))?;
            }
            // A package's own scripts do this when it is installed.
            let tree = tree.display().to_string();
            run("depmod", &["-b", &tree, &release], &self.dir, None).map(drop)
        })?;
        let modules = root.join("lib/modules").join(&release);
        let missing = |what: String| Error::Missing {
            what,
            dir: root.clone(),
        };
        let [image, _] = images(&root, &release);
        let image = images(&root, &release)
            .into_iter()
            .find(|it| it.exists())
            .ok_or_else(|| missing(format!("bootable image {}", image.display())))?;
        if !modules.exists() {
            return Err(missing(format!("folder of modules {}", modules.display())));
        }
        Ok(Kernel {
            release,
            image,
            modules,
        })
    }

    /// A busybox that needs no library.
    ///
    /// # Errors
    ///
    /// That it could not be downloaded or unpacked.
    pub fn busybox(&self) -> Result<PathBuf> {
        let root = self.unpacked(&Apt::machine(&self.dir), "busybox-static", |_| Ok(()))?;
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
        apt: &Apt,
        package: &str,
        prepare: impl FnOnce(&Unpacking) -> Result<()>,
    ) -> Result<PathBuf> {
        let version = apt.candidate(package)?.ok_or_else(|| Error::Missing {
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
        let unpacking = Unpacking {
            scratch: self.dir.join(format!(".unpacking-{}", std::process::id())),
            version,
        };
        unpacking.add(apt, package)?;
        prepare(&unpacking)?;
        // Whole or not at all, whenever this is interrupted.
        match fs::rename(unpacking.tree(), &root) {
            Err(_) if root.exists() => {}
            other => other.map_err(|source| file("create", &root, source))?,
        }
        Ok(root)
    }
}

/// Packages of one version that are unpacked into one tree.
struct Unpacking {
    scratch: PathBuf,
    version: String,
}

impl Unpacking {
    /// Where their content is.
    fn tree(&self) -> PathBuf {
        self.scratch.join("tree")
    }

    /// Downloads one and unpacks it.
    fn add(&self, apt: &Apt, package: &str) -> Result<()> {
        let archive = apt.download(package, &self.version, &self.scratch.join(package))?;
        let (archive, into) = (
            archive.display().to_string(),
            self.tree().display().to_string(),
        );
        run("dpkg-deb", &["-x", &archive, &into], &self.scratch, None).map(drop)
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        // What is left of a failure is found by name, and harms nobody.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// Where a tree may hold the image of a release.
fn images(tree: &Path, release: &str) -> [PathBuf; 2] {
    [
        tree.join("boot").join(format!("vmlinuz-{release}")),
        tree.join("usr/lib/modules").join(release).join("vmlinuz"),
    ]
}

pub(crate) fn file(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}
