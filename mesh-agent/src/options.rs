//! The command line.

use std::{
    io::{self, IsTerminal as _},
    net::{Ipv4Addr, ToSocketAddrs as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use reqwest::Url;
use tracing::warn;
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    agent::Settings, control_plane::ControlPlane, dataplane::DataplaneSettings, identity, machine,
    node::RegisterRequest, runtime_client::RuntimeAddress, sync::SyncSettings,
    underlay::source_address_towards,
};

mod values;

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
    after_help = "An option given twice counts as given last, and before its environment variable."
)]
pub struct Options {
    /// Base URL of the control plane, e.g. http://192.0.2.10:8080
    #[arg(long, value_name = "URL", env = "QUILT_MESH_CONTROL_PLANE", value_parser = values::http_url)]
    pub control_plane: Url,

    /// URL of the container runtime's gRPC interface on this node
    #[arg(
        long,
        value_name = "URL",
        env = "QUILT_MESH_QUILT_RUNTIME",
        default_value = "http://127.0.0.1:50051",
        value_parser = values::http_url
    )]
    pub quilt_runtime: Url,

    /// This node's IPv4 address on the underlay, by which the other nodes reach it
    ///
    /// Default: the source address that the kernel would use to reach the control plane. No
    /// packet is sent to find it.
    #[arg(long, value_name = "IP", env = "QUILT_MESH_HOST_IP", value_parser = values::underlay_address)]
    pub host_ip: Option<Ipv4Addr>,

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

    /// Directory that holds the node's identity (file "node-key")
    ///
    /// With it the node keeps its subnet when its address changes. It must exist and be
    /// writable for the agent's user, and belong to this node alone; otherwise the agent says
    /// so once and the node is known by its address.
    #[arg(
        long,
        value_name = "DIR",
        env = "QUILT_MESH_STATE_DIR",
        default_value = "/var/lib/quilt-mesh-agent"
    )]
    pub state_dir: PathBuf,

    /// Time between two heartbeats ("10s", "500ms", "1m"; a bare number is seconds)
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_HEARTBEAT_INTERVAL",
        default_value = "10s",
        value_parser = values::period
    )]
    pub heartbeat_interval: Duration,

    /// Time between two syncs of the peers
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_SYNC_INTERVAL",
        default_value = "5s",
        value_parser = values::period
    )]
    pub sync_interval: Duration,

    /// Deadline of each call to the control plane and to the runtime
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_REQUEST_TIMEOUT",
        default_value = "3s",
        value_parser = values::period
    )]
    pub request_timeout: Duration,

    /// Deadline of each connection to the control plane and to the runtime
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_CONNECT_TIMEOUT",
        default_value = "1s",
        value_parser = values::period
    )]
    pub connect_timeout: Duration,

    /// The overlay interface that routes to peers lead over
    #[arg(
        long,
        value_name = "NAME",
        env = "QUILT_MESH_OVERLAY_INTERFACE",
        default_value = "vxlan100",
        value_parser = values::interface_name
    )]
    pub overlay_interface: String,

    /// How long a peer stays that the control plane lists neither as up nor as down
    ///
    /// Only a control plane that lost its database forgets nodes. This is the time they have
    /// to register again before they are taken out of the mesh.
    #[arg(
        long,
        value_name = "TIME",
        env = "QUILT_MESH_ABSENT_PEER_GRACE",
        default_value = "60s",
        value_parser = values::period
    )]
    pub absent_peer_grace: Duration,

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
    /// Starts logging to standard error.
    ///
    /// # Errors
    /// If the process logs already.
    pub fn init_logging(&self) -> anyhow::Result<()> {
        let stderr = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        tracing_subscriber::registry()
            .with(self.log_level.clone())
            .with(stderr)
            .try_init()
            .context("cannot start logging")
    }

    /// Completes the options with what the system says.
    ///
    /// # Errors
    /// If host name or host address are not given and cannot be found.
    pub fn settings(self) -> anyhow::Result<Settings> {
        let hostname = match self.hostname {
            Some(hostname) => hostname,
            None => machine::hostname()
                .context("cannot read the system's host name; give one with --hostname")?,
        };
        let host_address = match self.host_ip {
            Some(address) => address,
            None => source_towards_control_plane(&self.control_plane)?,
        };
        if host_address.is_loopback() {
            warn!(%host_address, "other hosts cannot reach this node at a loopback address; give one with --host-ip");
        }
        let node_key = match identity::load_or_create(&self.state_dir) {
            Ok(key) => Some(key.to_string()),
            Err(error) => {
                warn!(error = %error, "no node key; this node is known by its host_ip");
                None
            }
        };
        let control_plane = ControlPlane::new(
            self.control_plane,
            self.request_timeout,
            self.connect_timeout,
        )
        .context("cannot set up the HTTP client")?;
        Ok(Settings {
            control_plane,
            node: RegisterRequest {
                hostname,
                host_ip: host_address,
                cpu_cores: machine::cpu_cores(),
                ram_mb: machine::ram_mb(),
                node_key,
            },
            heartbeat_interval: self.heartbeat_interval,
            sync: SyncSettings {
                interval: self.sync_interval,
                grace: self.absent_peer_grace,
                host_address,
            },
            dataplane: DataplaneSettings {
                runtime: RuntimeAddress {
                    authority: authority(&self.quilt_runtime),
                    deadline: self.request_timeout,
                    connect_deadline: self.connect_timeout,
                },
                interval: self.sync_interval,
                reinject_interval: self.reinject_interval,
                overlay_interface: self.overlay_interface,
                host_address,
            },
        })
    }
}

/// Finds the default of --host-ip.
fn source_towards_control_plane(control_plane: &Url) -> anyhow::Result<Ipv4Addr> {
    let authority = authority(control_plane);
    let mut addresses = authority
        .to_socket_addrs()
        .with_context(|| {
            format!(
                "cannot resolve {authority} to find this node's address; give it with --host-ip"
            )
        })?
        .collect::<Vec<_>>();
    addresses.sort_by_key(|address| !address.is_ipv4());
    let Some(remote) = addresses.first() else {
        bail!("{authority} has no address; give this node's address with --host-ip");
    };
    let address = source_address_towards(*remote)
        .context("cannot find this node's address; give it with --host-ip")?;
    Ok(address)
}

/// "host:port" of a URL that [`values::http_url`] accepted.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let mut line = vec![
            "quilt-mesh-agent",
            "--control-plane",
            "http://192.0.2.10:8080",
        ];
        line.extend_from_slice(arguments);
        Options::try_parse_from(line)
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let options = parse(&[]).unwrap();
        assert_eq!(authority(&options.quilt_runtime), "127.0.0.1:50051");
        assert_eq!(options.heartbeat_interval, Duration::from_secs(10));
        assert_eq!(options.sync_interval, Duration::from_secs(5));
        assert_eq!(options.request_timeout, Duration::from_secs(3));
        assert_eq!(options.overlay_interface, "vxlan100");
        assert_eq!(
            options.state_dir,
            PathBuf::from("/var/lib/quilt-mesh-agent")
        );
    }

    #[test]
    fn every_option_has_an_environment_variable() {
        use clap::CommandFactory as _;
        for argument in Options::command().get_arguments() {
            let long = argument.get_long().unwrap();
            let name = format!("QUILT_MESH_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().unwrap(), name.as_str());
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_the_rule() {
        for (option, value, rule) in [
            ("--control-plane", "192.0.2.10:8080", "http"),
            (
                "--control-plane",
                "https://192.0.2.10",
                "TLS is not supported",
            ),
            ("--control-plane", "http://", "empty host"),
            ("--control-plane", "http://a:b@192.0.2.10", "passwords"),
            ("--control-plane", "http://192.0.2.10/?x=1", "query"),
            (
                "--quilt-runtime",
                "unix:///run/quilt.sock",
                "not an http URL",
            ),
            ("--host-ip", "node1", "not an IPv4 address"),
            ("--host-ip", "2001:db8::1", "not an IPv4 address"),
            ("--host-ip", "0.0.0.0", "cannot be a destination"),
            ("--host-ip", "224.0.0.1", "multicast"),
            ("--host-ip", "255.255.255.255", "broadcast"),
            ("--hostname", "", "1 to 253 bytes"),
            ("--hostname", "a\nb", "control characters"),
            ("--overlay-interface", "sixteen-letters-", "1 to 15 bytes"),
            ("--overlay-interface", "../x", "without '/'"),
            ("--heartbeat-interval", "0", "at least 10ms"),
            ("--sync-interval", "soon", "not a time"),
            ("--sync-interval", "10 s", "not a time"),
            ("--sync-interval", "18446744073709551615h", "at most 24h"),
            ("--log-level", "loud", "write error, warn, info"),
        ] {
            let mut line = vec!["quilt-mesh-agent"];
            if option != "--control-plane" {
                line.extend(["--control-plane", "http://192.0.2.10:8080"]);
            }
            line.extend([option, value]);
            let error = Options::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains(rule), "{option} {value:?}: {error}");
        }
    }
}
