//! What a person or a packager may set from outside.

use std::path::PathBuf;

/// Overrides, each read from an environment variable because build scripts have no command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A finished object: nothing is built, it is only checked and used.
    pub object: Option<PathBuf>,
    /// The compiler to use, whatever else is on the machine.
    pub rustc: Option<PathBuf>,
    /// The bpf-linker to use; it must read the bitcode of that compiler's LLVM.
    pub linker: Option<PathBuf>,
}

impl Settings {
    /// Names [`Settings::object`].
    pub const OBJECT: &'static str = "QUILT_MESH_EBPF_OBJECT";
    /// Names [`Settings::rustc`].
    pub const RUSTC: &'static str = "QUILT_MESH_EBPF_RUSTC";
    /// Names [`Settings::linker`].
    pub const LINKER: &'static str = "QUILT_MESH_BPF_LINKER";
    /// All of them, for `cargo::rerun-if-env-changed`.
    pub const VARIABLES: [&'static str; 3] = [Self::OBJECT, Self::RUSTC, Self::LINKER];

    /// Reads the process environment; an empty value counts as unset.
    #[must_use]
    pub fn from_environment() -> Self {
        let path = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            object: path(Self::OBJECT),
            rustc: path(Self::RUSTC),
            linker: path(Self::LINKER),
        }
    }
}
