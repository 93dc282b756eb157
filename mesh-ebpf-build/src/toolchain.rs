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

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: Requirements = Requirements {
        oldest: Release(1, 95, 0),
        any_llvm: false,
    };

    fn candidate(origin: Origin, path: &str, release: Release, llvm: u32, core: Core) -> Candidate {
        let path = PathBuf::from(path);
        let rustc = Rustc {
            path: path.clone(),
            release,
            llvm,
            sysroot: "/sysroot".into(),
            core,
        };
        Candidate {
            origin,
            path,
            answer: Ok(rustc),
        }
    }

    fn debian() -> Candidate {
        candidate(
            Origin::System,
            "/usr/bin/rustc",
            Release(1, 96, 0),
            22,
            Core::Prebuilt,
        )
    }

    fn rustup(path: &str, release: Release, core: Core) -> Candidate {
        candidate(Origin::Rustup, path, release, 22, core)
    }

    fn chosen(candidates: &[Candidate]) -> PathBuf {
        choose(candidates, REQUIRED).unwrap().rustc.path
    }

    fn reason(candidate: Candidate, required: Requirements) -> String {
        choose(&[candidate], required).unwrap_err().remove(0).reason
    }

    #[test]
    fn a_toolchain_of_rustup_with_the_source_of_core_comes_before_the_systems_compiler() {
        let toolchain = choose(
            &[
                debian(),
                rustup("/r/rustc", Release(1, 95, 0), Core::Source),
            ],
            REQUIRED,
        )
        .unwrap();
        assert_eq!(toolchain.rustc.path, Path::new("/r/rustc"));
        assert!(toolchain.build_core);
    }

    #[test]
    fn without_that_source_rustup_is_passed_over_and_nothing_is_compiled_twice() {
        let candidates = [
            rustup("/r/rustc", Release(1, 97, 0), Core::Missing),
            debian(),
        ];
        let toolchain = choose(&candidates, REQUIRED).unwrap();
        assert_eq!(toolchain.rustc.path, Path::new("/usr/bin/rustc"));
        assert!(!toolchain.build_core);
    }

    #[test]
    fn of_several_the_newest_release_wins_in_whatever_order_they_were_found() {
        let mut candidates = vec![
            rustup("/r/95", Release(1, 95, 0), Core::Source),
            rustup("/r/97", Release(1, 97, 0), Core::Source),
            rustup("/r/96", Release(1, 96, 0), Core::Source),
        ];
        for _ in 0..candidates.len() {
            candidates.rotate_left(1);
            assert_eq!(chosen(&candidates), Path::new("/r/97"));
        }
    }

    #[test]
    fn an_override_is_used_or_refused_but_never_replaced() {
        let mut named = candidate(
            Origin::Override,
            "/mine",
            Release(1, 95, 0),
            22,
            Core::Prebuilt,
        );
        assert_eq!(
            chosen(&[
                rustup("/r/97", Release(1, 97, 0), Core::Source),
                named.clone()
            ]),
            Path::new("/mine")
        );
        named.answer = Err("`rustc --version --verbose` failed".to_owned());
        let rejected = choose(&[debian(), named], REQUIRED).unwrap_err();
        assert_eq!(
            rejected,
            [Rejected {
                path: "/mine".into(),
                reason: "`rustc --version --verbose` failed".into()
            }]
        );
    }

    #[test]
    fn a_compiler_older_than_the_workspace_needs_is_refused_by_number() {
        let old = candidate(
            Origin::System,
            "/usr/bin/rustc",
            Release(1, 85, 0),
            19,
            Core::Prebuilt,
        );
        assert_eq!(
            reason(old, REQUIRED),
            "it is 1.85.0, and 1.95.0 or newer is needed"
        );
    }

    #[test]
    fn a_compiler_whose_bitcode_the_linker_cannot_read_is_refused_unless_another_linker_is_named() {
        let newer = candidate(
            Origin::Rustup,
            "/r/nightly",
            Release(1, 99, 0),
            23,
            Core::Source,
        );
        assert_eq!(
            chosen(&[newer.clone(), debian()]),
            Path::new("/usr/bin/rustc")
        );
        let why = reason(newer.clone(), REQUIRED);
        assert!(
            why.contains("its LLVM is 23") && why.contains(Settings::LINKER),
            "{why}"
        );
        assert!(
            choose(
                &[newer],
                Requirements {
                    any_llvm: true,
                    ..REQUIRED
                }
            )
            .is_ok()
        );
    }

    #[test]
    fn every_rejected_compiler_is_listed() {
        let without_core = rustup("/r/rustc", Release(1, 95, 0), Core::Missing);
        let old = candidate(
            Origin::System,
            "/usr/bin/rustc",
            Release(1, 63, 0),
            14,
            Core::Missing,
        );
        let rejected = choose(&[without_core, old], REQUIRED).unwrap_err();
        let paths: Vec<_> = rejected
            .iter()
            .map(|rejected| rejected.path.to_str().unwrap())
            .collect();
        assert_eq!(paths, ["/r/rustc", "/usr/bin/rustc"]);
    }

    #[test]
    fn the_workspace_says_which_release_it_needs() {
        assert_eq!(
            oldest_release(),
            Release::parse(env!("CARGO_PKG_RUST_VERSION")).unwrap()
        );
    }
}
