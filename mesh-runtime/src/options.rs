//! How a runtime is set up, and the rules its options obey.

use std::{net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;
use mesh_ipam::Tombstones;

use crate::{
    ebpf::AttachMode,
    wanted::interface::{self, InterfaceNameError},
};

/// Options of a [`MeshRuntime`](crate::MeshRuntime). The defaults suit a node of a cluster
/// with the default addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The network from which nodes get their subnets.
    pub cluster_cidr: Ipv4Net,
    /// Prefix length of every node's subnet.
    pub node_prefix: u8,
    /// Name of the bridge that containers are attached to.
    pub bridge: String,
    /// Name of the VXLAN device.
    pub overlay_interface: String,
    /// This node's address on the underlay. `None`: what the agent says, else the source
    /// address of the default route, else the only global IPv4 address outside the cluster.
    pub host_address: Option<Ipv4Addr>,
    /// Mount point of the BPF file system; maps and links are pinned below it.
    pub bpffs: PathBuf,
    /// Directory in which the wanted state is kept, so that a reboot needs nobody to repeat
    /// it. `None`: it is kept in the kernel alone, which survives restarts of the runtime.
    pub state_dir: Option<PathBuf>,
    /// Where callers that find no runtime say whose interfaces they deleted. `None`: nowhere.
    pub tombstones: Option<Tombstones>,
    /// Networks on or behind the underlay whose packets may be routed into containers, beside
    /// what is established or published.
    pub routed_from: Vec<Ipv4Net>,
    /// Whether containers go out under the address of their host: to whatever is neither of the
    /// cluster nor of a network of [`routed_from`](Self::routed_from).
    pub masquerade: bool,
    /// Whether the node has an endpoint for probes, which takes the last address of its subnet: from it
    /// other nodes are asked, and it answers them.
    pub probe_endpoint: bool,
    /// Whether traffic is carried by eBPF programs.
    pub fast_path: FastPathMode,
    /// How eBPF programs are attached.
    pub attach: AttachMode,
}

/// Whether traffic is carried by eBPF programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastPathMode {
    /// Where the kernel can; elsewhere the node runs on the kernel path and says so.
    #[default]
    Auto,
    /// Never; the programs are attached all the same, and guard.
    Off,
    /// The runtime does not start without.
    Required,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            cluster_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16),
            node_prefix: 24,
            bridge: "quilt0".to_owned(),
            overlay_interface: "vxlan100".to_owned(),
            host_address: None,
            bpffs: PathBuf::from("/sys/fs/bpf"),
            state_dir: None,
            tombstones: None,
            routed_from: Vec::new(),
            masquerade: true,
            probe_endpoint: true,
            fast_path: FastPathMode::Auto,
            attach: AttachMode::Auto,
        }
    }
}

/// A combination of options that cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionsError {
    /// The cluster CIDR is not a network address.
    #[error("cluster CIDR {value} has host bits set: write {network}")]
    ClusterHostBits {
        /// The CIDR as given.
        value: Ipv4Net,
        /// Its network.
        network: Ipv4Net,
    },
    /// The nodes' prefix does not divide the cluster's network into 2 to 65,536 subnets.
    #[error(
        "node prefix /{node_prefix} does not fit cluster CIDR {cluster}: it must be longer than \
         the cluster's prefix by 1 to 16 bits, and at most /30"
    )]
    NodePrefix {
        /// The nodes' prefix length.
        node_prefix: u8,
        /// The cluster's network.
        cluster: Ipv4Net,
    },
    /// An interface name the kernel would not take.
    #[error(transparent)]
    InterfaceName(#[from] InterfaceNameError),
    /// Bridge and VXLAN device have one name.
    #[error("bridge and overlay interface are both named {0:?}: they are two devices")]
    SameInterface(String),
    /// A host address that no peer could send to.
    #[error("host address {address} cannot be a node's address on the underlay: it is {what}")]
    HostAddress {
        /// The address.
        address: Ipv4Addr,
        /// Why not.
        what: String,
    },
    /// The BPF file system's mount point is relative.
    #[error("BPF file system {0:?} is not an absolute path")]
    RelativeBpffs(PathBuf),
    /// The state directory is relative.
    #[error("state directory {0:?} is not an absolute path")]
    RelativeStateDir(PathBuf),
    /// A network that is routed in has host bits set, or lies in the cluster's.
    #[error(
        "packets cannot be routed into containers from {value} (--routed-from): it must be a network \
         address outside the cluster CIDR {cluster}, whose addresses are containers' alone"
    )]
    RoutedFrom {
        /// The network as given.
        value: Ipv4Net,
        /// The cluster's network.
        cluster: Ipv4Net,
    },
}

impl RuntimeOptions {
    /// Checks the options against each other.
    pub fn check(&self) -> Result<(), OptionsError> {
        let network = self.cluster_cidr.trunc();
        if network != self.cluster_cidr {
            return Err(OptionsError::ClusterHostBits {
                value: self.cluster_cidr,
                network,
            });
        }
        let bits = i16::from(self.node_prefix) - i16::from(self.cluster_cidr.prefix_len());
        if !(1..=16).contains(&bits) || self.node_prefix > 30 {
            return Err(OptionsError::NodePrefix {
                node_prefix: self.node_prefix,
                cluster: self.cluster_cidr,
            });
        }
        interface::check_name(&self.bridge)?;
        interface::check_name(&self.overlay_interface)?;
        if self.bridge == self.overlay_interface {
            return Err(OptionsError::SameInterface(self.bridge.clone()));
        }
        if let Some(address) = self.host_address
            && let Err(what) = underlay_address(address, self.cluster_cidr)
        {
            return Err(OptionsError::HostAddress { address, what });
        }
        if !self.bpffs.is_absolute() {
            return Err(OptionsError::RelativeBpffs(self.bpffs.clone()));
        }
        if let Some(path) = &self.state_dir
            && !path.is_absolute()
        {
            return Err(OptionsError::RelativeStateDir(path.clone()));
        }
        let cluster = self.cluster_cidr;
        for &value in &self.routed_from {
            if value.trunc() != value || cluster.contains(&value) {
                return Err(OptionsError::RoutedFrom { value, cluster });
            }
        }
        Ok(())
    }

    /// How many subnets the cluster has: the capacity of the peer maps.
    pub fn max_peers(&self) -> u32 {
        let bits = self
            .node_prefix
            .saturating_sub(self.cluster_cidr.prefix_len());
        1 << bits.min(16)
    }
}

/// Whether a node can have `address` on the underlay; if not, what it is instead.
pub(crate) fn underlay_address(address: Ipv4Addr, cluster: Ipv4Net) -> Result<(), String> {
    let what = if address.is_unspecified() {
        "the unspecified address".to_owned()
    } else if address.is_loopback() {
        "a loopback address".to_owned()
    } else if address.is_multicast() {
        "a multicast address".to_owned()
    } else if address.octets()[0] == 0 || address.octets()[0] >= 240 {
        "not a unicast address".to_owned()
    } else if cluster.contains(&address) {
        format!("inside the cluster CIDR {cluster}, where containers live")
    } else {
        return Ok(());
    };
    Err(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut RuntimeOptions)) -> OptionsError {
        let mut options = RuntimeOptions::default();
        change(&mut options);
        options.check().unwrap_err()
    }

    #[test]
    fn the_defaults_are_valid_and_hold_256_subnets() {
        let options = RuntimeOptions::default();
        assert_eq!(options.check(), Ok(()));
        assert_eq!(options.max_peers(), 256);
    }

    #[test]
    fn a_cluster_cidr_with_host_bits_is_refused_with_the_network_it_means() {
        let error = refused(|options| options.cluster_cidr = "10.42.1.0/16".parse().unwrap());
        assert!(error.to_string().contains("write 10.42.0.0/16"), "{error}");
    }

    #[test]
    fn a_node_prefix_that_does_not_divide_the_cluster_is_refused() {
        for prefix in [0, 16, 31, 33] {
            let error = refused(|options| options.node_prefix = prefix);
            assert!(
                matches!(error, OptionsError::NodePrefix { .. }),
                "/{prefix}: {error}"
            );
        }
        refused(|options| options.cluster_cidr = "10.0.0.0/7".parse().unwrap());
    }

    #[test]
    fn one_name_for_both_devices_is_refused() {
        let error = refused(|options| options.bridge = "vxlan100".to_owned());
        assert_eq!(error, OptionsError::SameInterface("vxlan100".to_owned()));
    }

    #[test]
    fn host_addresses_that_no_peer_can_reach_are_refused() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "10.42.7.7",
        ] {
            let error = refused(|options| options.host_address = address.parse().ok());
            assert!(error.to_string().contains(address), "{error}");
        }
    }

    #[test]
    fn a_network_inside_the_cluster_or_with_host_bits_is_routed_from_by_nobody() {
        for network in ["10.42.7.0/24", "10.42.0.0/16", "192.0.2.1/24"] {
            let error = refused(|options| options.routed_from = vec![network.parse().unwrap()]);
            assert!(error.to_string().contains(network), "{error}");
        }
    }

    #[test]
    fn a_relative_bpf_file_system_is_refused() {
        refused(|options| options.bpffs = PathBuf::from("sys/fs/bpf"));
    }
}
