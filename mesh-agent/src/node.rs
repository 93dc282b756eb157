//! This node, towards the control plane; and what may be a node's subnet.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use mesh_rest::{node::NodeEntry, registration::Registration};

/// A node as it is kept here: as the control plane lists it.
pub type Node = NodeEntry<'static>;

/// This node, as far as it stays the same while the agent runs.
#[derive(Debug, Clone)]
pub struct NodeDescription {
    /// The node's name, for people.
    pub hostname: String,
    /// Processors available to this process.
    pub cpu_cores: Option<u32>,
    /// Memory of the host in MiB.
    pub ram_mb: Option<u64>,
    /// The node's stable identity. Without one, its address identifies the node.
    pub node_key: Option<String>,
    /// Time between two heartbeats, if the operator gave one.
    pub heartbeat_interval: Option<Duration>,
}

impl NodeDescription {
    /// What registers the node with this address, and the subnet that it had before.
    #[must_use]
    pub fn at(&self, host_ip: Ipv4Addr, subnet: Option<Ipv4Net>) -> Registration {
        Registration {
            hostname: self.hostname.clone(),
            host_ip,
            cpu_cores: self.cpu_cores,
            ram_mb: self.ram_mb,
            node_key: self.node_key.clone(),
            subnet,
            overlay_mtu: None,
            heartbeat_interval_ms: self
                .heartbeat_interval
                .map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// This node as the control plane took it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Counts the registrations of this process, from 1.
    pub epoch: u64,
    /// The name of the node in all further calls; safe as a URL path segment.
    pub node_id: String,
    /// The subnet leased to the node.
    pub subnet: Ipv4Net,
    /// How often to beat, if the control plane told.
    pub heartbeat_interval: Option<Duration>,
}

/// Why a subnet from the network is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not CIDR notation.
    #[error("it is not an IPv4 network in CIDR notation")]
    Notation,
    /// An address inside a network, not the network.
    #[error("it has host bits set; the network is {0}")]
    HostBits(Ipv4Net),
    /// Too large or too small to be one node's containers, or no unicast addresses.
    #[error("it is not a unicast network of /8 to /30")]
    Range,
}

/// Reads a node's subnet, e.g. "10.42.2.0/24".
///
/// # Errors
/// If the text is not a unicast IPv4 network between /8 and /30 without host bits.
pub fn parse_subnet(text: &str) -> Result<Ipv4Net, SubnetError> {
    let net: Ipv4Net = text.parse().map_err(|_| SubnetError::Notation)?;
    if net.trunc() != net {
        return Err(SubnetError::HostBits(net.trunc()));
    }
    let first = net.network();
    let unicast = first.octets()[0] != 0 && first.octets()[0] < 224 && !first.is_loopback();
    if !unicast || !(8..=30).contains(&net.prefix_len()) {
        return Err(SubnetError::Range);
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_a_unicast_network_without_host_bits() {
        assert_eq!(parse_subnet("10.42.2.0/24").map(|n| n.prefix_len()), Ok(24));
        for notation in [
            "",
            "10.42.2.0",
            "10.42.2.0/33",
            "10.42.2/24",
            "fd00::/64",
            "x",
        ] {
            assert_eq!(
                parse_subnet(notation),
                Err(SubnetError::Notation),
                "{notation}"
            );
        }
        assert!(matches!(
            parse_subnet("10.42.2.7/24"),
            Err(SubnetError::HostBits(_))
        ));
        for range in [
            "0.0.0.0/0",
            "10.0.0.0/7",
            "10.42.2.4/31",
            "224.0.0.0/24",
            "127.0.0.0/24",
            "0.0.0.0/24",
        ] {
            assert!(
                matches!(parse_subnet(range), Err(SubnetError::Range)),
                "{range}"
            );
        }
    }
}
