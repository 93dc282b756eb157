//! Compilers on this machine that may be able to build the object.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::command::is_program;

/// How a compiler came to be considered; the order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Named by the environment.
    Override,
    /// A toolchain of rustup.
    Rustup,
    /// Found on `PATH` or where distributions put compilers.
    System,
}

/// rustup's compilers, then the system's, each once.
pub(crate) fn paths() -> Vec<(Origin, PathBuf)> {
    let mut seen = BTreeSet::new();
    let rustup = rustup_toolchains()
        .into_iter()
        .map(|path| (Origin::Rustup, path));
    let system = system_compilers()
        .into_iter()
        .map(|path| (Origin::System, path));
    rustup
        .chain(system)
        .filter(|(_, path)| is_program(path))
        .filter(|(_, path)| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())))
        .collect()
}

/// Read from the folder, not from `rustup toolchain list`, which would start rustup once per toolchain.
fn rustup_toolchains() -> Vec<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")));
    home.map_or_else(Vec::new, |home| children(&home.join("toolchains")))
        .into_iter()
        .map(|toolchain| toolchain.join("bin/rustc"))
        .collect()
}

fn system_compilers() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).chain(["/usr/bin".into(), "/usr/local/bin".into()]);
    // Ubuntu: /usr/lib/rust-1.89/bin/rustc. Vendors' builds: /opt/rust…/bin/rustc.
    let versioned = [("/usr/lib", "rust-"), ("/opt", "rust")]
        .into_iter()
        .flat_map(|(dir, prefix)| {
            children(Path::new(dir))
                .into_iter()
                .filter_map(move |child| {
                    let name = child.file_name()?.to_string_lossy().into_owned();
                    name.starts_with(prefix).then(|| child.join("bin"))
                })
        });
    // rustup's proxy answers for whatever toolchain is the default, which was asked by its own path already.
    on_path
        .chain(versioned)
        .filter(|dir| !dir.join("rustup").is_file())
        .map(|dir| dir.join("rustc"))
        .collect()
}

/// Sorted, so that the choice does not depend on the order in which a file system lists a folder.
fn children(dir: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    children.sort();
    children
}
