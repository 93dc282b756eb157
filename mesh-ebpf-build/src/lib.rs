//! Builds the eBPF object of package `mesh-ebpf`, and brings the toolchain that this needs.
//!
//! Two callers share it: `cargo xtask build-ebpf`, and the build script of `mesh-runtime`, which embeds the
//! object. Stable Rust cannot build the object by itself: it needs a `core` for `bpfel-unknown-none` and
//! bpf-linker, which must read the bitcode of the LLVM that the compiler carries. [`build`] finds both, or
//! installs them, compiles with a nested cargo in a target directory of its own, and reads the result back.
//!
//! The bytes depend on the sources, `Cargo.lock` and the toolchain, not on where the checkout lies.

mod apt;
mod architecture;
mod build_lock;
mod candidates;
mod checkout;
mod command;
mod compile;
mod environment;
mod error;
mod linker;
mod object_file;
mod rustc;
mod settings;
mod step;
mod toolchain;

use std::time::Duration;

pub use apt::install_packages;
pub use architecture::{Architecture, ByteOrder};
pub use checkout::Checkout;
pub use error::Error;
pub use object_file::{Contents, EbpfObject, Program, Sha256Digest, inspect, read};
pub use settings::Settings;
pub use step::Step;
pub use toolchain::Rejected;

use build_lock::BuildLock;

/// How long a build waits for another one in the same target directory. Installing the toolchain and
/// bpf-linker takes two to three minutes on two cores; this leaves room for slow mirrors.
const LOCK_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// Builds the eBPF object for `architecture` and returns what is in it. With nothing changed it returns
/// after asking the compiler for its version and cargo for freshness, well under two seconds.
///
/// `progress` hears of everything that takes time; [`Step::installs`] tells what changes the machine.
///
/// # Errors
///
/// Every [`Error`] says what to do next.
pub fn build(
    checkout: &Checkout,
    architecture: &Architecture,
    settings: &Settings,
    progress: &dyn Fn(&Step),
) -> Result<EbpfObject, Error> {
    if let Some(prebuilt) = &settings.object {
        return read(prebuilt);
    }
    let _lock = BuildLock::acquire(&checkout.ebpf_dir(), LOCK_DEADLINE, progress)?;
    let toolchain = toolchain::find_or_install(checkout, architecture, settings, progress)?;
    let linker = linker::find_or_install(checkout, settings, &toolchain.rustc, progress)?;
    let compiled = compile::compile(checkout, architecture, &toolchain, &linker, progress)?;
    object_file::publish(&compiled, &checkout.object_path(architecture))
}
