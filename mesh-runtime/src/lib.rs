//! The privileged part of a node: bridge, VXLAN device, routes and eBPF programs, and the
//! gRPC calls that steer them.
//!
//! [`MeshRuntime::start`] is all that a container runtime needs to embed it.

mod adopt;
mod calling;
mod cleanup;
mod command;
mod data_plane;
mod dataplane_service;
mod endpoint;
pub mod fast_path;
mod firewall;
mod headroom;
mod instance_lock;
mod interface;
mod kernel;
mod options;
mod peers;
mod privileges;
mod probe;
mod problem;
mod quilt_service;
mod reconcile;
mod registry;
mod runtime;
mod state;
mod subnet;
mod wanted;

pub use cleanup::{CleanupError, CleanupReport, cleanup};
pub use dataplane_service::DataplaneService;
pub use instance_lock::LockError;
pub use interface::InterfaceNameError;
pub use kernel::ROUTE_PROTOCOL;
pub use options::{FastPathMode, OptionsError, RuntimeOptions};
pub use privileges::MissingPrivilege;
pub use quilt_service::QuiltService;
pub use runtime::{MeshRuntime, StartError};
pub use state::StateDirError;
