//! Why there is no object, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::linker;
use crate::settings::Settings;
use crate::toolchain::{Rejected, oldest_release};

/// Every way in which building the object fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No compiler fits, and none could be installed.
    #[error("{}", no_toolchain(packages, rejected))]
    NoToolchain {
        /// Packages that would bring one.
        packages: Vec<String>,
        /// What was looked at.
        rejected: Vec<Rejected>,
    },
    /// A program named by the environment cannot be used.
    #[error("{variable}={} cannot be used: {reason}. Name another one, or unset {variable}", path.display())]
    OverrideUnusable {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
        /// The rule it breaks.
        reason: String,
    },
    /// The compiler has its LLVM linked in, where bpf-linker cannot borrow it.
    #[error(
        "{} has no shared LLVM library that bpf-linker could borrow: set {} to a bpf-linker made for LLVM {llvm}, \
         or {} to a compiler with a shared LLVM, as rustup and Debian deliver them",
        rustc.display(), Settings::LINKER, Settings::RUSTC
    )]
    NoLlvmLibrary {
        /// The compiler.
        rustc: PathBuf,
        /// Major version of its LLVM.
        llvm: u32,
    },
    /// bpf-linker of the pinned version does not exist for this LLVM.
    #[error(
        "bpf-linker {} reads the bitcode of LLVM {}, not of LLVM {llvm}: set {} to a bpf-linker made for LLVM {llvm}",
        linker::VERSION,
        linker::supported(),
        Settings::LINKER
    )]
    LlvmUnsupported {
        /// Major version of the compiler's LLVM.
        llvm: u32,
    },
    /// bpf-linker did not compile or could not be fetched.
    #[error(
        "bpf-linker could not be installed; cargo's messages are above. To see it alone: `{command}`. \
         A machine that cannot download crates can set {} to a bpf-linker it already has",
        Settings::LINKER
    )]
    LinkerInstall {
        /// What was run.
        command: String,
    },
    /// apt-get failed.
    #[error("`{command}` failed; its messages are in {}", log.display())]
    Apt {
        /// What was run.
        command: String,
        /// Where its messages are.
        log: PathBuf,
    },
    /// The nested cargo failed.
    #[error(
        "the eBPF object did not compile; the compiler's messages are above (rustc: {}, command: `{command}`). \
         Another compiler can be named in {}",
        rustc.display(), Settings::RUSTC
    )]
    Compile {
        /// What was run.
        command: String,
        /// The compiler.
        rustc: PathBuf,
    },
    /// The object lacks something without which it cannot be loaded or understood.
    #[error("{} is not a usable eBPF object: {reason}", path.display())]
    Object {
        /// The object.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// Another build did not finish in time.
    #[error(
        "another build has held {} for {seconds} s. If none is running, the process that holds it is shown by \
         `fuser -v {}`",
        lock.display(), lock.display()
    )]
    Locked {
        /// The file.
        lock: PathBuf,
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// A program could not be started.
    #[error("cannot run `{command}`: {source}")]
    CannotRun {
        /// What was to be run.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// A program had to be ended.
    #[error(
        "`{command}` was ended after {seconds} s without a result; run it by hand to see where it hangs"
    )]
    TookTooLong {
        /// What was run.
        command: String,
        /// Its deadline, in seconds.
        seconds: u64,
    },
    /// The folder is not in a checkout of this repository.
    #[error(
        "{} is not inside a checkout of Quilt Mesh: no folder above it holds Cargo.lock and mesh-ebpf/Cargo.toml. \
         Build from a checkout, or set {} to a finished object",
        dir.display(), Settings::OBJECT
    )]
    NotACheckout {
        /// Where the search began.
        dir: PathBuf,
    },
    /// A file or folder refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

fn no_toolchain(packages: &[String], rejected: &[Rejected]) -> String {
    let oldest = oldest_release();
    let mut text = format!(
        "no Rust compiler here can build the eBPF object. Do one of these, then build again:\n\
         \n  on Debian or Ubuntu, its packaged compiler with a core library for BPF (beside rustup, which stays first):\
         \n    sudo apt-get update && sudo apt-get install --no-install-recommends {}\n\
         \n  anywhere else, a toolchain of rustup with the source of that library:\
         \n    rustup toolchain install {oldest} --profile minimal --component rust-src\n",
        packages.join(" ")
    );
    if rejected.is_empty() {
        text.push_str("\nNo compiler was found at all.");
    } else {
        text.push_str("\nThese were looked at:");
    }
    for Rejected { path, reason } in rejected {
        text.push_str(&format!("\n  {}: {reason}", path.display()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_names_both_ways_as_commands_and_each_compiler_with_the_reason_against_it()
    {
        let error = Error::NoToolchain {
            packages: vec!["rustc-web".into(), "libstd-rust-web-dev-bpf".into()],
            rejected: vec![Rejected {
                path: "/opt/rustc".into(),
                reason: "it is 1.63.0".into(),
            }],
        };
        let lines: Vec<_> = error
            .to_string()
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        for line in [
            "sudo apt-get update && sudo apt-get install --no-install-recommends rustc-web libstd-rust-web-dev-bpf",
            "rustup toolchain install 1.95.0 --profile minimal --component rust-src",
            "/opt/rustc: it is 1.63.0",
        ] {
            assert!(
                lines.iter().any(|found| found == line),
                "no line `{line}` in {lines:#?}"
            );
        }
    }
}
