//! The privileged part of a node: bridge, VXLAN device, routes and eBPF programs, and the
//! gRPC calls that steer them.
//!
//! [`MeshRuntime::start`] is all that a container runtime needs to embed it.
//!
//! A change passes the folders in this order:
//!
//! | folder | holds |
//! |---|---|
//! | `api/` | the gRPC services: from messages to commands and back |
//! | `wanted/` | what callers want, its rules, and the files that keep it |
//! | `observed/` | what the kernel shows. `events` subscribes and hears, `notification` says what that puts in doubt (`dirty`), `read` and `message` read it |
//! | `desired/` | pure: from settings, wanted and observed state to all that the kernel is to show. `devices` are bridge and VXLAN device, `entries` routes, neighbours and forwarding entries, `sysctl` the files |
//! | `diff/` | pure: from desired and observed state to changes, in their order; its files are named as in `desired/` |
//! | `apply/` | makes the changes: netlink, sysctl, nftables |
//! | `ebpf/` | the programs and their maps: loaded, attached, filled, migrated |
//! | `reconcile/` | the loop that owns all of it |
//! | `probe/` | asks peers for a sign of life |
//! | `netlink/` | how the kernel is spoken with |
//!
//! Beside them: `settings`, what holds for the life of a runtime; `problem`, what keeps the kernel
//! from the desired state; `headroom`, a device by which the kernel leaves room for outer headers; `cleanup`, which
//! removes all that was made.

mod api;
mod apply;
mod cleanup;
mod desired;
mod diff;
pub mod ebpf;
mod headroom;
mod instance_lock;
mod netlink;
mod observed;
mod options;
mod privileges;
mod probe;
mod problem;
mod reconcile;
mod runtime;
mod settings;
mod wanted;

pub use api::{dataplane::DataplaneService, quilt::QuiltService};
pub use cleanup::{CleanupError, CleanupReport, cleanup};
pub use instance_lock::LockError;
pub use observed::ROUTE_PROTOCOL;
pub use options::{FastPathMode, OptionsError, RuntimeOptions};
pub use privileges::MissingPrivilege;
pub use runtime::{MeshRuntime, StartError};
pub use wanted::{interface::InterfaceNameError, state::StateDirError};
