//! The command line.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Parser, builder::BoolishValueParser};
use mesh_log::{Log, LogOptions};
use mesh_metrics::MetricsOptions;
use mesh_problems::catalog::agent::NO_NODE_KEY;
use reqwest::Url;
use tracing::warn;
use tracing_subscriber::filter::Targets;

use crate::{
    agent::{AtEnd, Settings},
    control_plane::ControlPlane,
    dataplane::DataplaneSettings,
    departure::Departure,
    feed::FeedSettings,
    host_address::HostAddress,
    identity, machine,
    measured::Measured,
    membership::Membership,
    node::NodeDescription,
    probe::ProbeSettings,
    problems::Problems,
    runtime_client::RuntimeAddress,
    socket,
    socket::AgentSocket,
    token::TokenKeeper,
};

mod runtime;
mod transport;
mod values;

pub use runtime::RuntimeOptions;
pub use transport::TransportOptions;
pub use values::RuntimeUrl;

/// The agent of a Quilt Mesh node: registers the node with the control plane, keeps it
/// alive, and tells the container runtime on this node about its peers.
///
/// It needs no privileges: run it as a user of its own. It ends on SIGTERM or SIGINT after
/// deregistering the node; the routes stay in place.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "quilt-mesh-agent",
    version,
    max_term_width = 100,
    args_override_self = true,
    after_help = "An option other than --control-plane given twice counts as given last, and \
                  before its environment variable."
)]
pub struct Options {
    /// Base URL of the control plane, e.g. https://192.0.2.10:8080; one for each replica
    ///
    /// Give it once for each replica, or all of them separated by commas. They are tried in
    /// this order; the agent stays with one until it fails, and then goes on to the next.
    #[arg(
        long,
        value_name = "URL",
        env = "QUILT_MESH_CONTROL_PLANE",
        required = true,
        action = ArgAction::Append,
        value_delimiter = ',',
        value_parser = values::control_plane_url
    )]
    pub control_plane: Vec<Url>,

    /// How the control plane is known, and this node to it.
    #[command(flatten)]
    pub transport: TransportOptions,

    /// Where the runtime is.
    #[command(flatten)]
    pub runtime: RuntimeOptions,

    /// Where metrics are served.
    #[command(flatten)]
    pub metrics: MetricsOptions,

    /// This node's IPv4 address on the underlay, by which the other nodes reach it
    ///
    /// Default: the source address that the kernel would use to reach the (first) control
    /// plane. No packet is sent to find it. While there is none (no route, a name that does not
    /// resolve), the agent waits and says for what. When it changes, the node registers again with
    /// the new address and keeps its subnet; an address given here never changes.
    ///
    /// Of a name with several addresses one is chosen; it stays while this host has a way to it. Where
    /// the control plane's address is one of this host's own, it is the node's too if it is the first
    /// of its interface, with a network, and no address that moves between hosts (VRRP): else the
    /// node's is what this host would use if the control plane was elsewhere, and where that cannot be
    /// told the agent waits until it is given here.
    #[arg(long, value_name = "IP", env = "QUILT_MESH_HOST_IP", value_parser = values::underlay_address)]
    pub host_ip: Option<Ipv4Addr>,

    /// Unix socket on which the agent tells how it fares, e.g. to meshctl; "off" for none
    ///
    /// Every user of this host may ask: it only tells, and neither the token, a key nor anything else by which somebody could
    /// pass for this node. Its directory is made if the agent's user may; where there can be no socket the agent goes on
    /// without.
    #[arg(
        long,
        value_name = "PATH",
        env = "QUILT_MESH_AGENT_SOCKET",
        default_value = socket::DEFAULT,
        value_parser = values::agent_socket
    )]
    pub socket: AgentSocket,

    /// This node's name, for people [default: the system's host name]
    #[arg(long, value_name = "NAME", env = "QUILT_MESH_HOSTNAME", value_parser = values::hostname)]
    pub hostname: Option<String>,

    /// What to log: error, warn, info, debug, trace, or targets ("info,mesh_agent::sync=debug")
    #[arg(
        long,
        value_name = "LEVEL",
        env = "QUILT_MESH_LOG_LEVEL",
        default_value = "info",
        value_parser = values::log_targets
    )]
    pub log_level: Targets,

    #[command(flatten)]
    #[allow(missing_docs)] // That would be a heading in --help.
    pub log: LogOptions,

    /// Directory that holds the node's identity (files "node-key" and "node-token", and of a node that joined "node.key",
    /// "node.pem" and "ca.pem")
    ///
    /// With it the node keeps its subnet when its address changes. It must exist and be
    /// writable for the agent's user, and belong to this node alone; otherwise the agent says
    /// so once and the node is known by its address. A node can only join with it.
    #[arg(
        long,
        value_name = "DIR",
        env = "QUILT_MESH_STATE_DIR",
        default_value = "/var/lib/quilt-mesh-agent"
    )]
    pub state_dir: PathBuf,

    /// Time between two heartbeats ("10s", "500ms", "1m"; a bare number is seconds)
    ///
    /// Default: as often as the control plane tells, a third of its --node-timeout; 10s where it
    /// does not tell. It refuses a node that would beat fewer than two times within that timeout.
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_HEARTBEAT_INTERVAL",
        value_parser = values::period
    )]
    pub heartbeat_interval: Option<Duration>,

    /// Time between two syncs of the peers, at most
    ///
    /// Changes arrive sooner: for so long the control plane waits for one before it answers
    /// that there is none. One without a change feed is asked for all nodes this often.
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_SYNC_INTERVAL",
        default_value = "5s",
        value_parser = values::period
    )]
    pub sync_interval: Duration,

    /// Deadline of each call to the control plane and to the runtime, its connection included
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_REQUEST_TIMEOUT",
        default_value = "5s",
        value_parser = values::period
    )]
    pub request_timeout: Duration,

    /// Deadline of each connection to the control plane and to the runtime
    ///
    /// A packet that opens a connection and is lost is sent again after 1 s, and after 2 s more: a
    /// shorter deadline than 3.5 s makes a lost packet or two a failure.
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_CONNECT_TIMEOUT",
        default_value = "4s",
        value_parser = values::period
    )]
    pub connect_timeout: Duration,

    /// The overlay interface that routes to peers lead over, for a runtime without mesh.MeshDataplane
    ///
    /// One that serves it makes the routes itself, along with the peers.
    #[arg(
        long,
        value_name = "NAME",
        env = "QUILT_MESH_OVERLAY_INTERFACE",
        default_value = "vxlan100",
        value_parser = values::interface_name
    )]
    pub overlay_interface: String,

    /// How long a peer stays that is not listed and whose packets do not arrive
    ///
    /// Only a control plane that lost its database forgets nodes. This is the time they have
    /// to register again before they are taken out of the mesh. It also holds for a peer
    /// that is listed as down while the runtime cannot find out whether it is alive.
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_ABSENT_PEER_GRACE",
        default_value = "60s",
        value_parser = values::period
    )]
    pub absent_peer_grace: Duration,

    /// Has no effect any more: a peer whose agent was stopped stays while its packets arrive
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_DEPARTURE_GRACE",
        hide = true
    )]
    pub departure_grace: Option<String>,

    /// How long one probe of a peer waits for a sign of life
    ///
    /// A peer that the control plane does not call up is probed through the data plane, and
    /// kept while its packets arrive.
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_PROBE_TIMEOUT",
        default_value = "1s",
        value_parser = values::probe_timeout
    )]
    pub probe_timeout: Duration,

    /// How many probes in a row a peer may leave unanswered before it is taken for dead
    #[arg(
        long,
        value_name = "COUNT",
        env = "QUILT_MESH_PROBE_ATTEMPTS",
        default_value = "3",
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub probe_attempts: u32,

    /// How long node lists older than one already seen are taken for those of a replica of
    /// the control plane that lags, and not for those of a database restored from a backup
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_REPLICA_LAG",
        default_value = "15s",
        value_parser = values::period
    )]
    pub replica_lag: Duration,

    /// Say nothing to the control plane when the agent ends
    ///
    /// The node then counts as up for the node timeout, and as down after that, as if its host
    /// had failed. Otherwise it is down at once. Either way the other nodes keep it while its
    /// packets arrive.
    #[arg(
        long,
        env = "QUILT_MESH_STAY_REGISTERED",
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new()
    )]
    pub stay_registered: bool,

    /// Let the node leave the mesh for good when the agent ends
    ///
    /// The other nodes take it out at once, whatever its packets do, and the control plane may
    /// lease its subnet to another. Started again, it joins again, with its old subnet if that
    /// is still its own. For this the node needs a key (see --state-dir).
    #[arg(
        long,
        env = "QUILT_MESH_LEAVE",
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        conflicts_with = "stay_registered"
    )]
    pub leave: bool,

    /// Time between two injections of all routes into a runtime without mesh.MeshDataplane
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_REINJECT_INTERVAL",
        default_value = "30s",
        value_parser = values::period
    )]
    pub reinject_interval: Duration,
}

impl Options {
    /// Starts logging to standard error, until the returned value goes.
    ///
    /// # Errors
    /// If the process logs already.
    pub fn init_logging(&self) -> anyhow::Result<Log> {
        mesh_log::start(self.log.log_format, self.log_level.clone()).context("cannot start logging")
    }

    /// Completes the options with what the system says.
    ///
    /// # Errors
    /// If the host name is not given and cannot be read, the HTTP client cannot be set up, the runtime's place cannot be used,
    /// or TLS is asked for and cannot be spoken with what is there.
    pub fn settings(self) -> anyhow::Result<Settings> {
        let hostname = match self.hostname {
            Some(hostname) => hostname,
            None => machine::hostname()
                .context("cannot read the system's host name; give one with --hostname")?,
        };
        let host_address = match (self.host_ip, self.control_plane.first()) {
            (Some(address), _) => HostAddress::Fixed(address),
            (None, Some(control_plane)) => HostAddress::Towards(values::authority(control_plane)),
            (None, None) => bail!("no control plane is given; give one with --control-plane"),
        };
        let problems = Problems::default();
        let (node_key, token) = match identity::load_or_create(&self.state_dir) {
            Ok(key) => {
                let token = TokenKeeper::open(&self.state_dir, problems.clone());
                (Some(key.to_string()), token)
            }
            Err(error) => {
                warn!(name: "no-node-key",
                    code = NO_NODE_KEY.code, %error,
                    "no node key; this node is known by its host_ip"
                );
                problems.raise(&NO_NODE_KEY, error.to_string());
                (None, TokenKeeper::in_memory())
            }
        };
        let transport =
            self.transport
                .transport(&self.control_plane, &self.state_dir, &problems)?;
        let membership = transport.membership.map(|start| Membership {
            node_key: node_key.clone(),
            hostname: hostname.clone(),
            heartbeat_interval: self.heartbeat_interval,
            ..start
        });
        let control_plane = ControlPlane::new(
            self.control_plane,
            self.request_timeout,
            self.connect_timeout,
            token,
            transport.tls,
            transport.standing,
            problems.clone(),
        )
        .context("cannot set up the HTTP client")?;
        let runtime = RuntimeAddress {
            place: self.runtime.place()?,
            deadline: self.request_timeout,
            connect_deadline: self.connect_timeout,
        };
        Ok(Settings {
            control_plane,
            membership,
            own_certificate: transport.own_certificate,
            problems,
            socket: self.socket,
            node: NodeDescription {
                hostname,
                cpu_cores: machine::cpu_cores(),
                ram_mb: machine::ram_mb(),
                node_key,
                heartbeat_interval: self.heartbeat_interval,
            },
            host_address,
            feed: FeedSettings {
                interval: self.sync_interval,
                replica_lag: self.replica_lag,
            },
            absent_peer_grace: self.absent_peer_grace,
            probe: ProbeSettings {
                runtime: runtime.clone(),
                interval: self.sync_interval,
                timeout: self.probe_timeout,
                attempts: self.probe_attempts,
            },
            dataplane: DataplaneSettings {
                runtime,
                interval: self.sync_interval,
                reinject_interval: self.reinject_interval,
                overlay_interface: self.overlay_interface,
            },
            departure: Departure::in_directory(&self.state_dir),
            at_end: match (self.stay_registered, self.leave) {
                (true, _) => AtEnd::Stay,
                (false, true) => AtEnd::Leave,
                (false, false) => AtEnd::Stop,
            },
            measured: Measured::default(),
        })
    }
}

#[cfg(test)]
#[path = "options/tests.rs"]
mod tests;
