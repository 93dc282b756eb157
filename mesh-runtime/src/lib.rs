//! The privileged part of a node: bridge, VXLAN device, routes and eBPF programs, and the
//! gRPC calls that steer them.
//!
//! [`MeshRuntime::start`] is all that a container runtime needs to embed it.
//!
//! A change passes the folders in this order:
//!
//! | folder | holds |
//! |---|---|
//! | `daemon/` | the program around this library: command line, socket, server |
//! | `api/` | the gRPC services: from messages to commands and back. `quilt` has the three calls, `dataplane` the peer set and the status, `registry` leases and containers; `inspect` what a person asks, with `monitor`, `trace` and `firewall`; `maintenance` what an operator decides; `capabilities` are what a caller may count on |
//! | `wanted/` | what callers want, and the rules by which a call is refused: `subnet` for subnets and destinations of routes, `peer` for peers, `endpoint_request` and `attachment` for containers, `node_settings` for what all nodes share. `registry/` leases addresses (`turn`: one call at a time for each owner; `sweep`: leases that nobody seems to use), `state/` keeps it all on disk (`record` is the file's format, `choose` whether file or kernel is believed), `adopt` finds it in the kernel |
//! | `observed/` | what the kernel shows. `events` subscribes and hears, `notification` says what that puts in doubt (`dirty`), `read` and `message` read it; beside them what else is looked at, each by its name |
//! | `desired/` | pure: from settings, wanted and observed state to all that the kernel is to show. `underlay` chooses addresses, interfaces and the overlay's MTU, `devices` are bridge and VXLAN device, `entries` routes, neighbours and forwarding entries, each peer's MTU among them, `sysctl` the files, `firewall/` the rules of nftables (`passages` see whether others' rules drop what is ours, `translation` is about whose address a packet carries, `published` about ports of the host), `endpoints` and `fast_path` what the maps hold |
//! | `diff/` | pure: from desired and observed state to changes of devices and entries, in their order (`change`) |
//! | `apply/` | makes the changes: netlink, sysctl, and nftables, whose rules are compared and replaced as a whole, and the elements of its sets one by one |
//! | `ebpf/` | the programs and their maps: loaded, attached (`hook` which, `sequence` in which order, `link` one), filled, pinned, migrated; `events` are what they tell, `listeners` whom, `watch` switches it on; `live` reads maps and hooks for looking |
//! | `reconcile/` | the loop that owns all of it: `start`, and then in each `round` a `reading`, a comparison, changes. `schedule` says when, `calls`, `endpoints` and `views` answer callers, `waiting` keeps callers, of changes and of views, until programs and rules show what their answer says; `new_ports` are ports of the bridge, `port_watch` is about the port of VXLAN, `monitor` about those who look at packets, `firewall_check` who look at the rules; `forget` is about a node that is none any more; the other files are the loop's side of what they are named after |
//! | `probe/` | asks peers for a sign of life, by call, and by itself whether VXLAN is swallowed on the way (`look` asks, `swallowed` judges). `path/` asks along the way to one by every path, and judges what is wrong |
//! | `trace/` | what would become of a packet: `gather` reads what the kernel has, `walk` goes the packet's way by it (pure), with what our programs do from their specification, mesh-model |
//! | `netlink/` | how the kernel is spoken with |
//!
//! Beside them: `runtime`, which starts and stops it; `options`, what a runtime is started with, and `settings`, what of it
//! holds for its life; `privileges`, what it may do; `instance_lock`, so that there is one to a network namespace;
//! `metrics`, what is measured, as Prometheus reads it (`page`: from what the loop tells, pure); `problem`, everything that
//! is not as it should be, with what mends it; `headroom`, a device by which the kernel leaves room for outer headers;
//! `probe_endpoint/`, a container with nobody in it, from which probes are sent as containers send; `cleanup`, which removes
//! all that was made.
//!
//! Times, counts and limits stand beside what they are for, texts of refusals beside the rule.

mod api;
mod apply;
mod cleanup;
mod desired;
mod diff;
pub mod ebpf;
mod headroom;
mod instance_lock;
mod metrics;
mod netlink;
mod observed;
mod options;
mod privileges;
mod probe;
mod probe_endpoint;
mod problem;
mod reconcile;
mod runtime;
mod settings;
pub mod trace;
mod wanted;

pub use api::{
    dataplane::DataplaneService, inspect::InspectService, maintenance::MaintenanceService,
    quilt::QuiltService, tcp_address::TcpAddress,
};
pub use cleanup::{CleanupError, CleanupReport, cleanup};
pub use instance_lock::LockError;
pub use mesh_ipam::Tombstones;
pub use metrics::RuntimeMetrics;
pub use observed::ROUTE_PROTOCOL;
pub use options::{FastPathMode, OptionsError, RuntimeOptions};
pub use privileges::MissingPrivilege;
pub use runtime::{MeshRuntime, StartError};
pub use wanted::{interface::InterfaceNameError, state::StateDirError};
