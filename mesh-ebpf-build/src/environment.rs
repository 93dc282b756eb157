//! What a nested cargo may inherit.
//!
//! Inside a build script the environment describes the outer build: its flags, its wrapper (clippy's driver),
//! its profile and its jobserver. Any of these would change the object, so that the same sources gave other
//! bytes depending on who asked.

use std::process::Command;

/// Prefixes of what a person sets to reach their registry or proxy.
const KEPT_PREFIXES: [&str; 5] = [
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_TERM_",
];

/// Names that start with `CARGO_` or `RUST` but say where things are, not how to build.
const KEPT: [&str; 4] = [
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUST_BACKTRACE",
    "RUSTUP_TOOLCHAIN",
];

/// Set by cargo for build scripts, without a telling prefix.
const OF_BUILD_SCRIPTS: [&str; 10] = [
    "CARGO",
    "DEBUG",
    "HOST",
    "MAKEFLAGS",
    "MFLAGS",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "TARGET",
];

/// Whether the variable belongs to an outer build and must not reach a nested one.
pub(crate) fn belongs_to_outer_build(name: &str) -> bool {
    if KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    OF_BUILD_SCRIPTS.contains(&name)
        || [
            "CARGO_",
            "RUSTC",
            "RUSTDOC",
            "RUSTFLAGS",
            "CLIPPY_",
            "DEP_",
            "__CARGO",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Removes what [`belongs_to_outer_build`], and the library path with which cargo runs its children: it would
/// make one compiler load another compiler's LLVM.
pub(crate) fn detach_from_outer_build(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(belongs_to_outer_build) {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_describes_the_outer_build_is_not_inherited() {
        for name in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_MAKEFLAGS",
            "CARGO_FEATURE_USER",
            "CARGO_PROFILE_EBPF_DEBUG",
            "CARGO_BUILD_TARGET",
            "CARGO_MANIFEST_DIR",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTFLAGS",
            "RUSTDOCFLAGS",
            "CLIPPY_ARGS",
            "OUT_DIR",
            "TARGET",
            "PROFILE",
            "MAKEFLAGS",
        ] {
            assert!(
                belongs_to_outer_build(name),
                "{name} reaches the nested cargo"
            );
        }
    }

    #[test]
    fn the_way_to_the_registry_is_inherited() {
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "RUSTUP_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_MIRROR_INDEX",
            "https_proxy",
            "QUILT_MESH_EBPF_RUSTC",
        ] {
            assert!(
                !belongs_to_outer_build(name),
                "{name} does not reach the nested cargo"
            );
        }
    }
}
