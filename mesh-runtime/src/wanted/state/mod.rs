//! The wanted state on disk, so that a restart or a reboot needs nobody to repeat it.
//!
//! ```text
//! /var/lib/quilt-mesh-runtime/
//! ├── state             what the calls so far have made, replaced as a whole
//! ├── state.new         the next one while it is written
//! ├── leases            who holds which address, a line for each change (crate mesh-ipam)
//! ├── state.damaged-1   what could not be used, for whoever wants to know why; at most 4
//! └── lock              held with flock(2) while a runtime lives; says whether `state` lags
//! ```
//!
//! `state` is written a moment after a change, beside the loop. What the calls of that moment
//! did is in the kernel alone, which outlives this process: so before the kernel is changed a
//! mark is set in `lock`, and taken away once the file has caught up. The mark need not reach
//! the disk. Whoever finds it set either finds the kernel's objects too, or the host was
//! restarted and they are gone, along with everything the file lacks.
//!
//! [`record`] is the file's format, [`choose`] says whom to believe at the start (both pure),
//! [`directory`] has the files.

mod choose;
mod directory;
mod record;

pub(crate) use choose::{Found, Source, choose};
pub use directory::StateDirError;
pub(crate) use directory::{Directory, current_life, leases, remove};
