//! The daemon's command line.

use std::{
    net::{AddrParseError, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use ipnet::Ipv4Net;
use mesh_metrics::MetricsOptions;
use mesh_runtime::{FastPathMode, RuntimeOptions, Tombstones, ebpf::AttachMode};

use super::tls::TlsFiles;

/// Keeps this node's part of the Quilt Mesh overlay: the bridge of its containers, the VXLAN
/// device, routes to the other nodes, and the eBPF programs that carry the traffic.
///
/// It serves quilt.QuiltRuntime and mesh.MeshDataplane over gRPC to the agent on this node,
/// and runs as root (docs/RUNTIME_IMPLEMENTATION.md lists what another user needs). The data plane stays in the kernel when the daemon stops; --cleanup
/// removes it.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "quilt-runtime", version, args_override_self = true)]
pub(crate) struct DaemonOptions {
    /// Address on which gRPC is served, but for the calls that make endpoints and lease addresses;
    /// "off" for the Unix socket alone. Whoever can connect can steer this node's overlay: beyond loopback it is
    /// served with TLS alone, to callers with a certificate (--tls-cert, --tls-key, --tls-ca).
    #[arg(
        long,
        env = "QUILT_MESH_GRPC_ADDR",
        value_name = "ADDRESS|off",
        default_value = "127.0.0.1:50051"
    )]
    pub(crate) grpc_addr: GrpcAddress,

    /// Certificate that the TCP door shows, in PEM, with those between it and its CA. With it the door serves TLS
    /// alone, also on loopback. The three files are read again when they change.
    #[arg(
        long,
        env = "QUILT_MESH_TLS_CERT",
        value_name = "FILE",
        requires_all = ["tls_key", "tls_ca"]
    )]
    tls_cert: Option<PathBuf>,

    /// Key of --tls-cert, in PEM. Only its owner may be able to read the file.
    #[arg(
        long,
        env = "QUILT_MESH_TLS_KEY",
        value_name = "FILE",
        requires_all = ["tls_cert", "tls_ca"]
    )]
    tls_key: Option<PathBuf>,

    /// CA that has signed the certificates of those who may call, in PEM; there may be several in the file. Whoever has
    /// one for use as a client may steer this node's overlay: a CA of its own is best.
    #[arg(
        long,
        env = "QUILT_MESH_TLS_CA",
        value_name = "FILE",
        requires_all = ["tls_cert", "tls_key"]
    )]
    tls_ca: Option<PathBuf>,

    /// Unix socket on which every call is served, to root and to the user that this daemon runs as.
    #[arg(
        long,
        env = "QUILT_MESH_SOCKET",
        value_name = "PATH",
        default_value = "/run/quilt-mesh/runtime.sock"
    )]
    pub(crate) socket: PathBuf,

    /// Group whose members may call on the Unix socket as well: they can do to this host's network what
    /// root can.
    #[arg(long, env = "QUILT_MESH_SOCKET_GROUP", value_name = "GROUP")]
    pub(crate) socket_group: Option<String>,

    /// What is logged to standard error: error, warn, info, debug, trace, or a filter such as
    /// mesh_runtime=debug,warn.
    #[arg(
        long,
        env = "QUILT_MESH_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub(crate) log_level: String,

    #[command(flatten)]
    pub(crate) log: mesh_log::LogOptions,

    /// Network from which all nodes get their subnets; the same on every node.
    #[arg(
        long,
        env = "QUILT_MESH_CLUSTER_CIDR",
        value_name = "CIDR",
        default_value = "10.42.0.0/16"
    )]
    cluster_cidr: Ipv4Net,

    /// Prefix length of every node's subnet.
    #[arg(
        long,
        env = "QUILT_MESH_NODE_PREFIX",
        value_name = "BITS",
        default_value_t = 24
    )]
    node_prefix: u8,

    /// Bridge that containers are attached to. It is created if it does not exist; one that
    /// exists is used and never deleted.
    #[arg(
        long,
        env = "QUILT_MESH_BRIDGE",
        value_name = "NAME",
        default_value = "quilt0"
    )]
    bridge: String,

    /// VXLAN device of the overlay, and the only via_interface that InjectRoute accepts.
    #[arg(
        long,
        env = "QUILT_MESH_OVERLAY_INTERFACE",
        value_name = "NAME",
        default_value = "vxlan100"
    )]
    overlay_interface: String,

    /// This node's address on the underlay. Without it: what the agent says, else the source
    /// address of the default route, else the only global IPv4 address outside the cluster.
    #[arg(long, env = "QUILT_MESH_HOST_IP", value_name = "ADDRESS")]
    host_ip: Option<Ipv4Addr>,

    /// Mount point of the BPF file system; maps and programs are pinned in quilt-mesh/ below
    /// it. One is mounted there if there is none.
    #[arg(
        long,
        env = "QUILT_MESH_BPFFS",
        value_name = "PATH",
        default_value = "/sys/fs/bpf"
    )]
    bpffs: PathBuf,

    /// Directory in which the wanted state is kept: subnet, peers, routes and endpoints. With
    /// it a host that was restarted has its overlay back before the agent has spoken.
    #[arg(
        long,
        env = "QUILT_MESH_STATE_DIR",
        value_name = "PATH",
        default_value = "/var/lib/quilt-mesh-runtime"
    )]
    state_dir: PathBuf,

    /// Network on or behind the underlay whose packets may be routed into containers, such as a LAN
    /// whose router sends the cluster's network to this node; may be given several times. Without
    /// it only what is established, or published by DNAT on this host, gets in from the underlay.
    #[arg(
        long,
        env = "QUILT_MESH_ROUTED_FROM",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    routed_from: Vec<Ipv4Net>,

    /// Whether containers go out under the address of their host, to the outside and to the addresses
    /// of other hosts. A network of --routed-from sees their own addresses: its routers know the way back.
    #[arg(
        long,
        env = "QUILT_MESH_MASQUERADE",
        value_name = "MODE",
        value_enum,
        default_value_t
    )]
    masquerade: Masquerade,

    /// Whether this node has an endpoint for probes (meshctl ping), which takes the last address of its subnet. Without it
    /// pings from here say nothing of the fast path, and those from elsewhere find nobody at that address.
    #[arg(
        long,
        env = "QUILT_MESH_PROBE_ENDPOINT",
        value_name = "MODE",
        value_enum,
        default_value_t
    )]
    probe_endpoint: ProbeEndpoint,

    /// Whether eBPF programs carry the traffic.
    #[arg(
        long,
        env = "QUILT_MESH_FAST_PATH",
        value_name = "MODE",
        value_enum,
        default_value_t
    )]
    fast_path: FastPath,

    /// How eBPF programs are attached.
    #[arg(
        long,
        env = "QUILT_MESH_ATTACH",
        value_name = "MODE",
        value_enum,
        default_value_t
    )]
    attach: Attach,

    /// Does nothing any more: strangers' VXLAN is dropped by the program on the underlay interface. Unit files of
    /// earlier releases may say it.
    #[arg(
        long,
        env = "QUILT_MESH_XDP_GUARD",
        value_name = "MODE",
        value_enum,
        default_value_t,
        hide = true
    )]
    #[allow(dead_code, reason = "what it says is taken and has no effect")]
    xdp_guard: XdpGuard,

    #[command(flatten)]
    pub(crate) metrics: MetricsOptions,

    /// Removes everything of Quilt Mesh from this host and exits: programs, pins, routes, the VXLAN device, the
    /// interfaces that were made for containers, the state directory, and the bridge unless something else is
    /// attached to it or somebody else made it. The daemon must not be running.
    #[arg(long)]
    pub(crate) cleanup: bool,
}

/// Where gRPC is served over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrpcAddress {
    /// Nowhere.
    Off,
    At(SocketAddr),
}

impl FromStr for GrpcAddress {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At),
        }
    }
}

/// Whether this node has an endpoint for probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ProbeEndpoint {
    #[default]
    On,
    Off,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Masquerade {
    /// By a rule in our own table.
    #[default]
    On,
    /// Not by us: routers know the way to containers, or somebody else's rule does it.
    Off,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum FastPath {
    /// Where the kernel can; elsewhere the kernel path carries everything, with a warning.
    #[default]
    Auto,
    /// Never. The programs are attached all the same, and guard what containers and strangers send.
    Off,
    /// The daemon does not start without it.
    Required,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Attach {
    /// tcx where the kernel has it (6.6), clsact elsewhere.
    #[default]
    Auto,
    /// tcx links only.
    Tcx,
    /// clsact filters only.
    Clsact,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum XdpGuard {
    #[default]
    Off,
    Generic,
    Native,
}

impl DaemonOptions {
    /// The files for TLS on the TCP door, if it is to serve that.
    pub(crate) fn tls_files(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            authorities: Some(self.tls_ca.clone()?),
        })
    }

    /// The options of the library.
    pub(crate) fn runtime_options(&self) -> RuntimeOptions {
        RuntimeOptions {
            cluster_cidr: self.cluster_cidr,
            node_prefix: self.node_prefix,
            bridge: self.bridge.clone(),
            overlay_interface: self.overlay_interface.clone(),
            host_address: self.host_ip,
            bpffs: self.bpffs.clone(),
            state_dir: Some(self.state_dir.clone()),
            tombstones: Some(Tombstones::beside(&self.socket)),
            routed_from: self.routed_from.clone(),
            masquerade: self.masquerade == Masquerade::On,
            probe_endpoint: self.probe_endpoint == ProbeEndpoint::On,
            fast_path: match self.fast_path {
                FastPath::Auto => FastPathMode::Auto,
                FastPath::Off => FastPathMode::Off,
                FastPath::Required => FastPathMode::Required,
            },
            attach: match self.attach {
                Attach::Auto => AttachMode::Auto,
                Attach::Tcx => AttachMode::Tcx,
                Attach::Clsact => AttachMode::Clsact,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_every_option_reads_an_environment_variable() {
        let command = DaemonOptions::command();
        command.clone().debug_assert();
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            // An environment that cleans up by accident would be a trap.
            if ["help", "version", "cleanup"].contains(&name) {
                continue;
            }
            let expected = format!("QUILT_MESH_{}", name.to_uppercase());
            assert_eq!(
                argument.get_env().and_then(|it| it.to_str()),
                Some(expected.as_str())
            );
        }
    }

    #[test]
    fn without_options_the_daemon_runs_with_the_librarys_defaults_and_keeps_its_state() {
        let options = DaemonOptions::parse_from(["quilt-runtime"]);
        let expected = RuntimeOptions {
            state_dir: Some("/var/lib/quilt-mesh-runtime".into()),
            tombstones: Some(Tombstones::beside("/run/quilt-mesh/runtime.sock".as_ref())),
            ..RuntimeOptions::default()
        };
        assert_eq!(options.runtime_options(), expected);
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 50051));
        assert_eq!(options.grpc_addr, GrpcAddress::At(loopback));
    }

    #[test]
    fn the_port_on_loopback_can_be_closed() {
        let options = DaemonOptions::parse_from(["quilt-runtime", "--grpc-addr", "off"]);
        assert_eq!(options.grpc_addr, GrpcAddress::Off);
    }

    #[test]
    fn certificate_key_and_ca_are_given_together() {
        let three = ["--tls-cert", "--tls-key", "--tls-ca"];
        let parse = |which: &[&'static str]| {
            let arguments = which.iter().flat_map(|&option| [option, "file"]);
            DaemonOptions::try_parse_from(["quilt-runtime"].into_iter().chain(arguments))
        };
        assert!(parse(&three).unwrap().tls_files().is_some());
        assert!(parse(&[]).unwrap().tls_files().is_none());
        for left_out in three {
            let given: Vec<_> = three.into_iter().filter(|&it| it != left_out).collect();
            let error = parse(&given).unwrap_err().to_string();
            assert!(error.contains(left_out), "{error}");
        }
    }
}
