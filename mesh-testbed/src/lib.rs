//! Hosts and containers made of network namespaces, with real processes on them.
//!
//! A [`Testbed`] is a cluster on one machine: an underlay (a bridge in a namespace of its
//! own, 192.0.2.0/24), a [`ControlPlane`] at 192.0.2.1, and [`Host`]s from 192.0.2.2 on, each
//! with an `eth0` whose offloads are like a network card's, its own bpffs, state directories
//! and log files. [`Container`]s hang on a host's bridge as those of any engine do. Everything
//! needs root, and says so.
//!
//! ```no_run
//! # async fn example() -> Result<(), mesh_testbed::Error> {
//! use std::time::Duration;
//! use mesh_testbed::{Daemon, DaemonOptions, PingOptions, Signal, Testbed, ping, transfer, wait_reachable};
//!
//! let testbed = Testbed::builder().hosts(3).underlay_mtu(1500).build().await?;
//! testbed.start().await?; // control plane, runtimes, agents; all are each other's peers
//! let [first, second, _] = testbed.hosts() else { unreachable!() };
//! let (a, b) = (first.add_container().await?, second.add_container().await?);
//!
//! wait_reachable(a.netns(), b.address(), Duration::from_secs(10)).await?;
//! let report = ping(a.netns(), b.address(), PingOptions::default()).await?;
//! let copy = transfer(a.netns(), b.netns(), b.address(), 100_000_000, Duration::from_secs(60)).await?;
//! assert!(report.is_complete() && copy.is_intact());
//!
//! first.stop(Daemon::Runtime, Signal::SIGTERM, Duration::from_secs(10)).await?;
//! first.start_runtime(&DaemonOptions::new().args(["--fast-path", "off"])).await?;
//! println!("{:?}", first.status().await?); // MeshDataplane/GetStatus
//! println!("{:?}", first.routes().await?); // what the kernel shows, over netlink
//! testbed.underlay_cut(second).await?;
//! # Ok(()) }
//! ```
//!
//! # Without daemons
//!
//! [`NetNs::new`] gives a single namespace: [`run`](NetNs::run), [`run_async`](NetNs::run_async)
//! and [`command`](NetNs::command) put closures, futures and programs inside,
//! [`netlink`](NetNs::netlink) and [`Links`] configure it. Sockets made inside stay inside
//! wherever they are used later. [`Host::add_bridge`] stands in for the runtime.
//!
//! # Daemons
//!
//! Binaries come from `QUILT_MESH_BIN_DIR`, else from beside the running executable. The
//! runtime runs with root's capabilities, agent and control plane with none at all
//! ([`Privileges`]). [`DaemonOptions`] passes more options, environment variables or another
//! binary. An error of a `start` or `wait` shows the daemon's last log lines and the command
//! that enters its namespace (`nsenter --net=…`; `ip netns exec` hides bpffs).
//!
//! # PostgreSQL
//!
//! [`Postgres`] is a real server on loopback. It needs no root and no testbed: Debian's package
//! `postgresql`, and no cluster of it.
//!
//! # Container engines
//!
//! [`Engine`] is a real Podman, Docker or containerd on a host, as Debian 12 packages them, whose containers
//! hang on the host's `quilt0`. It sees nothing of the machine's own engines, nor they of it.
//!
//! [`Cni`] is the part of an engine that speaks CNI: it does with lists of plugins what libcni does, for
//! versions and orders of calls that no packaged engine has.
//!
//! [`Netavark`] does with a plugin what Podman and netavark do, and holds it to their contract.
//!
//! [`Gate`] stands between any of them and a host's runtime: calls and answers wait there until the test says what becomes of them.
//!
//! # Programs
//!
//! [`copy_program`] and [`write_script`] make what can be executed at once, whatever other tests fork meanwhile.
//!
//! # Cleaning up
//!
//! Dropping a value removes what it stands for, also on panic. For SIGKILL, Ctrl-C and abort
//! a small `sh` in a session of its own waits for this process to end and then does the same.
//! Processes are killed only if this process started them (process id and start time agree)
//! or if they are inside its namespaces. [`Testbed::keep`] leaves a cluster running, and
//! [`remove_kept_testbed`] removes it later.

mod binaries;
mod child_process;
mod cni;
mod container;
mod control_plane;
mod daemons;
mod deadline;
mod doors;
mod engine;
mod entrance;
mod error;
mod gate;
mod grpc;
mod host;
mod link;
mod netavark;
mod netns;
mod offload;
mod packet_socket;
mod ping;
mod postgres;
mod process;
mod program;
mod reaper;
pub mod stepped_clock;
mod tcp_flow;
mod testbed;
mod transfer;
mod udp_flow;
mod watch;

pub use binaries::BIN_DIR_VARIABLE;
pub use cni::{Cni, CniAttachment, CniError, CniFailure};
pub use container::{CONTAINER_MTU, Container, ContainerOptions};
pub use control_plane::ControlPlane;
pub use daemons::{Daemon, binary};
pub use deadline::{Deadline, TimeUp, wait_until};
pub use engine::{
    Distribution, Engine, EngineContainer, EngineContainerOptions, EngineNetwork, cni_plugins,
    write_root,
};
pub use entrance::Entrance;
pub use error::{Error, Result};
pub use gate::{Gate, GateAnswer, GateCall};
pub use host::{BRIDGE, Host, RUNTIME_PORT};
pub use link::{KernelRoute, Links};
pub use netavark::{Netavark, NetavarkContainer, NetavarkError};
pub use netns::NetNs;
/// The signals that daemons are sent.
pub use nix::sys::signal::Signal;
pub use offload::{enable_nic_offloads, set_offload};
pub use packet_socket::PacketSocket;
pub use ping::{Echo, PingOptions, PingReport, ping, wait_reachable};
pub use postgres::{Postgres, PostgresOptions};
pub use process::{DaemonOptions, Privileges, Process};
pub use program::{copy_program, write_script};
pub use reaper::{ROOT, kept_testbeds, remove_kept_testbed};
pub use tcp_flow::{TcpFlow, TcpFlowOptions, TcpFlowReport};
pub use testbed::{MAX_HOSTS, Testbed, TestbedBuilder};
pub use transfer::{Transfer, transfer};
pub use udp_flow::{Outage, UdpFlow, UdpFlowOptions, UdpFlowReport};
pub use watch::Watch;
