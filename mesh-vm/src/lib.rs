//! The product on the kernels that distributions ship.
//!
//! Tests on the developer's own kernel say nothing of Debian 12's 6.1, whose verifier follows
//! less of what a program does and which has no tcx, and nothing of Debian 11's 5.10, which loads none of
//! the programs. `cargo xtask test --kernel 6.1 --kernel 6.12` boots such kernels under qemu's software emulation, which needs neither root nor `/dev/kvm`, and
//! runs the real `quilt-runtime` inside. [`Check`] lists what must hold on each.
//!
//! # How it goes
//!
//! 1. [`package`]: apt says which is the newest kernel of the series, this machine's or else with lists
//!    of our own for Debian 11 and the backports of Debian 13; its packages are downloaded and
//!    unpacked, not installed, under `target/vm/`, and kept there.
//! 2. [`initramfs`]: an archive of the modules that the product needs, the product's binaries,
//!    the driver `mesh-vm-guest` and `mesh-faults`, with the libraries they are linked to, a
//!    shell, kmod, tc and nft, Debian's CNI plugin `bandwidth`, and a static busybox for the rest. Modules are loaded by the kernel's
//!    own request when the product first asks for a device of theirs, as on a real host.
//! 3. [`machine`]: qemu runs it with two processors, a machine for each kernel at the same
//!    time. The guest's console goes to a file; the driver reports on a second serial port, so
//!    that no kernel message tears its lines. Between two checks it says every few seconds what
//!    it is at; a guest that says nothing is killed, and its last word and console are shown.
//!    Once it tells what a node has on this kernel ([`Standing`]): the rows of README's table.
//! 4. [`report`]: the host prints each check as Rust's test programs print theirs. A check
//!    that the guest never came to has failed.
//!
//! The driver makes two hosts with a container each out of network namespaces
//! (`mesh-testbed`), and plays the agent of both. For faults that need modules which not every
//! machine's own kernel has (netem) it runs `mesh-faults`, with a whole mesh, agents and control
//! plane. What it counts comes from two sides: the
//! programs' own counters, and those that the kernel keeps for the VXLAN device, which the
//! fast path passes by.
//!
//! No duration in emulation means anything, and none is checked; deadlines are generous.
//!
//! # When a check fails
//!
//! The console is printed, with both runtimes' whole logs (the verifier's complaint is in
//! there), and stays in `target/vm/console-<series>.log`. To look around in the guest:
//!
//! ```text
//! cargo build --release --workspace --bins
//! target/release/mesh-vm --kernel 6.1 --shell
//! ```
//!
//! boots to a shell; `mesh-vm-guest` runs the checks there, `poweroff -f` ends it.

mod apt;
mod check;
pub mod cpio;
mod doing;
mod error;
pub mod initramfs;
pub mod machine;
pub mod package;
pub mod report;
mod series;
mod standing;
mod turn;

pub use check::Check;
pub use doing::{Doing, SIGN_OF_LIFE};
pub use error::{Error, Result};
pub use report::{GUEST_PORT, Outcome, Report};
pub use series::Series;
pub use standing::Standing;
pub use turn::Turn;

/// The environment variable that tells the guest which way of attaching its kernel offers, or
/// [`NO_FAST_PATH`].
/// The kernel passes what it does not know on its command line to init as environment
/// (kernel-parameters.txt, "parameters not recognized by the kernel").
pub const ATTACH_VARIABLE: &str = "QUILT_MESH_VM_ATTACH";

/// What [`ATTACH_VARIABLE`] says where no program loads.
pub const NO_FAST_PATH: &str = "none";
