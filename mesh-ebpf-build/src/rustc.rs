//! What a Rust compiler says of itself, as far as the eBPF object depends on it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::answer;

/// Major, minor and patch of a Rust release, without a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Release {
    /// Reads `1.96.0`, `1.97.0-nightly` and `1.95` alike.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(['-', '+']).next()?.split('.').map(str::parse);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        let patch = numbers.next().transpose().ok()?.unwrap_or(0);
        Some(Self(major, minor, patch))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Where a compiler's `core` for the BPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// Installed beside the compiler, ready to link.
    Prebuilt,
    /// As source in the sysroot (rustup's component `rust-src`): `-Zbuild-std=core` compiles it.
    Source,
    /// Neither.
    Missing,
}

/// A compiler that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    /// The program; inside rustup's folder, never its proxy, for a proxy's answer depends on the directory.
    pub(crate) path: PathBuf,
    pub(crate) release: Release,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    pub(crate) sysroot: PathBuf,
    pub(crate) core: Core,
}

impl Rustc {
    /// Asks the compiler at `path`, or returns the reason why it gave no answer.
    pub(crate) fn probe(path: &Path, bpf_target: &str) -> Result<Self, String> {
        let ask = |arguments: &[&str]| {
            let mut command = Command::new(path);
            crate::environment::detach_from_outer_build(&mut command);
            answer(command.args(arguments))
                .ok_or_else(|| format!("`rustc {}` failed", arguments.join(" ")))
        };
        let (release, llvm) = parse_version(&ask(&["--version", "--verbose"])?)?;
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
        // Fails where the compiler does not know the target at all, which is no reason to give up on it yet.
        let libdir = ask(&["--print", "target-libdir", "--target", bpf_target]).unwrap_or_default();
        let core = if holds_libcore(Path::new(libdir.trim())) {
            Core::Prebuilt
        } else if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
            Core::Source
        } else {
            Core::Missing
        };
        let inside = sysroot.join("bin/rustc");
        let path = if inside.is_file() {
            inside
        } else {
            path.to_owned()
        };
        Ok(Self {
            path,
            release,
            llvm,
            sysroot,
            core,
        })
    }

    /// The shared library with this compiler's LLVM, as the dynamic loader finds it; none when LLVM is linked in.
    pub(crate) fn llvm_library(&self) -> Option<PathBuf> {
        let mut command = Command::new(&self.path);
        crate::environment::detach_from_outer_build(&mut command);
        // glibc's and musl's loaders list a program's libraries instead of running it; `ldd` does the same.
        parse_loader_trace(&answer(command.env("LD_TRACE_LOADED_OBJECTS", "1"))?)
    }
}

/// Release and LLVM's major version from `rustc --version --verbose`.
fn parse_version(text: &str) -> Result<(Release, u32), String> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .ok_or_else(|| format!("`rustc --version --verbose` has no line `{name}`"))
    };
    let release = field("release:")?;
    let llvm = field("LLVM version:")?;
    let release = Release::parse(release)
        .ok_or_else(|| format!("its release `{release}` is not a version"))?;
    let llvm = llvm
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .ok_or_else(|| format!("its LLVM version `{llvm}` is not a version"))?;
    Ok((release, llvm))
}

/// Path of libLLVM from lines like `libLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007f…)`.
fn parse_loader_trace(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let path = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
        (name.starts_with("libLLVM") && path.starts_with('/')).then(|| PathBuf::from(path))
    })
}

fn holds_libcore(libdir: &Path) -> bool {
    std::fs::read_dir(libdir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
        commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96\ncommit-date: 2026-05-25\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn release_and_llvm_are_read_from_the_verbose_version() {
        assert_eq!(parse_version(DEBIAN), Ok((Release(1, 96, 0), 22)));
        let nightly = DEBIAN.replace("release: 1.96.0", "release: 1.97.0-nightly");
        assert_eq!(parse_version(&nightly), Ok((Release(1, 97, 0), 22)));
    }

    #[test]
    fn a_compiler_without_llvm_is_refused_by_name_of_the_missing_line() {
        let cranelift_only = DEBIAN.replace("LLVM version: 22.1.8\n", "");
        assert!(
            parse_version(&cranelift_only)
                .unwrap_err()
                .contains("LLVM version:")
        );
    }

    #[test]
    fn releases_order_by_number_not_by_text() {
        assert!(Release::parse("1.100.0") > Release::parse("1.99.9"));
        assert_eq!(Release::parse("1.95"), Some(Release(1, 95, 0)));
        assert_eq!(Release::parse("stable"), None);
    }

    #[test]
    fn the_loaders_trace_leads_to_the_llvm_library() {
        let rustup = "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f0e)\n\
            \tlibLLVM.so.22.1-rust-1.95.0-stable => /t/bin/../lib/libLLVM.so.22.1-rust-1.95.0-stable (0x00007fb1)\n";
        assert_eq!(
            parse_loader_trace(rustup),
            Some(PathBuf::from(
                "/t/bin/../lib/libLLVM.so.22.1-rust-1.95.0-stable"
            ))
        );
        assert_eq!(parse_loader_trace("\tlibLLVM.so.22.1 => not found\n"), None);
        assert_eq!(
            parse_loader_trace("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"),
            None
        );
    }
}
