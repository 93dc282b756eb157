//! Which compiler builds the object.

use std::path::{Path, PathBuf};

use crate::candidates::{self, Origin};
use crate::linker;
use crate::rustc::{Core, Release, Rustc};
use crate::settings::Settings;
use crate::{Architecture, Checkout, Error, Step, apt};

/// The compiler to use, and whether it has to compile `core` first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) rustc: Rustc,
    pub(crate) build_core: bool,
}

/// A compiler and what it said of itself, or why it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) origin: Origin,
    pub(crate) path: PathBuf,
    pub(crate) answer: Result<Rustc, String>,
}

/// A compiler that was found and cannot be used, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The program.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

/// What a compiler must fulfil.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requirements {
    /// The workspace's `rust-version`.
    pub(crate) oldest: Release,
    /// A bpf-linker was given, whose LLVM is not known here: any compiler's LLVM is accepted.
    pub(crate) any_llvm: bool,
}

/// The first compiler that fulfils the requirements: the override alone when there is one; else a rustup
/// toolchain with the source of `core`; else any compiler with `core` for the target. Of several in one
/// rank the newest release wins.
///
/// # Errors
///
/// Every candidate with the reason against it.
pub(crate) fn choose(
    candidates: &[Candidate],
    required: Requirements,
) -> Result<Toolchain, Vec<Rejected>> {
    let mut usable = Vec::new();
    let mut rejected = Vec::new();
    let has_override = candidates
        .iter()
        .any(|candidate| candidate.origin == Origin::Override);
    for candidate in candidates {
        if has_override && candidate.origin != Origin::Override {
            continue;
        }
        match check(candidate, required) {
            Ok(rustc) => usable.push((candidate.origin, rustc)),
            Err(reason) => rejected.push(Rejected {
                path: candidate.path.clone(),
                reason,
            }),
        }
    }
    usable.sort_by_key(|(origin, rustc)| (*origin, std::cmp::Reverse(rustc.release)));
    match usable.into_iter().next() {
        Some((_, rustc)) => Ok(Toolchain {
            build_core: rustc.core == Core::Source,
            rustc: rustc.clone(),
        }),
        None => Err(rejected),
    }
}

fn check(candidate: &Candidate, required: Requirements) -> Result<&Rustc, String> {
    let rustc = candidate.answer.as_ref().map_err(Clone::clone)?;
    if rustc.release < required.oldest {
        return Err(format!(
            "it is {}, and {} or newer is needed",
            rustc.release, required.oldest
        ));
    }
    if rustc.core == Core::Missing {
        return Err(
            "it has neither a core library for the BPF target nor the source of one".to_owned(),
        );
    }
    if !required.any_llvm && !linker::supports(rustc.llvm) {
        return Err(format!(
            "its LLVM is {}, and bpf-linker {} reads {}: set {} to a bpf-linker made for LLVM {}",
            rustc.llvm,
            linker::VERSION,
            linker::supported(),
            Settings::LINKER,
            rustc.llvm,
        ));
    }
    Ok(rustc)
}

/// Looks at the machine and chooses; as root on a machine with apt, installs a compiler when there is none.
pub(crate) fn find_or_install(
    checkout: &Checkout,
    architecture: &Architecture,
    settings: &Settings,
    progress: &dyn Fn(&Step),
) -> Result<Toolchain, Error> {
    let target = architecture.bpf_target();
    let required = Requirements {
        oldest: oldest_release(),
        any_llvm: settings.linker.is_some(),
    };
    if let Some(rustc) = &settings.rustc {
        let candidates = [probe(Origin::Override, rustc, target)];
        return choose(&candidates, required).map_err(|rejected| Error::OverrideUnusable {
            variable: Settings::RUSTC,
            path: rustc.clone(),
            reason: rejected
                .into_iter()
                .map(|candidate| candidate.reason)
                .collect(),
        });
    }
    let find = || {
        let candidates: Vec<_> = candidates::paths()
            .iter()
            .map(|(origin, path)| probe(*origin, path, target))
            .collect();
        choose(&candidates, required)
    };
    let rejected = match find() {
        Ok(toolchain) => return Ok(toolchain),
        Err(rejected) => rejected,
    };
    match apt::offer(&checkout.ebpf_dir(), required.oldest)? {
        apt::Offer::Install(packages) => {
            progress(&Step::InstallsPackages {
                packages: packages.clone(),
            });
            apt::install(&packages, &checkout.ebpf_dir())?;
            find().map_err(|rejected| Error::NoToolchain { packages, rejected })
        }
        apt::Offer::Suggest(packages) => Err(Error::NoToolchain { packages, rejected }),
    }
}

fn probe(origin: Origin, path: &Path, target: &str) -> Candidate {
    Candidate {
        origin,
        path: path.to_owned(),
        answer: Rustc::probe(path, target),
    }
}

/// The workspace's `rust-version`, which this crate inherits like every other.
pub(crate) fn oldest_release() -> Release {
    Release::parse(env!("CARGO_PKG_RUST_VERSION")).unwrap_or(Release(1, 95, 0))
}
