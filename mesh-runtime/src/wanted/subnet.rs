//! Which subnets a request may name.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::options::RuntimeOptions;

/// Why a subnet in a request is refused. Each names the value and the rule it breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SubnetError {
    /// Not `address/prefix`.
    #[error("{value:?} is not a network in CIDR notation, such as {example}")]
    NotACidr {
        /// The value in the request.
        value: String,
        /// What would be accepted.
        example: Ipv4Net,
    },
    /// An IPv6 network.
    #[error("{0} is an IPv6 network: the overlay carries IPv4 alone")]
    Ipv6(String),
    /// An address inside a network, not the network's own.
    #[error("{value} has host bits set: the network is {network}")]
    HostBits {
        /// The value in the request.
        value: Ipv4Net,
        /// The network it lies in.
        network: Ipv4Net,
    },
    /// Longer or shorter than a node's subnet.
    #[error(
        "{value} is a /{}: a node's subnet is a /{expected} (--node-prefix, of the control plane and of each runtime alike)",
        value.prefix_len()
    )]
    Prefix {
        /// The value in the request.
        value: Ipv4Net,
        /// Prefix length of the nodes of this cluster.
        expected: u8,
    },
    /// Not in the cluster's network.
    #[error(
        "{value} lies outside the cluster CIDR {cluster} (--cluster-cidr, of the control plane and of each runtime alike)"
    )]
    OutsideCluster {
        /// The value in the request.
        value: Ipv4Net,
        /// The cluster's network.
        cluster: Ipv4Net,
    },
    /// The first subnet of the cluster.
    #[error("{0} is the zero subnet of the cluster, which is never handed out")]
    ZeroSubnet(Ipv4Net),
    /// This node's own.
    #[error("{0} is this node's own subnet: it is on the bridge and needs no route")]
    Own(Ipv4Net),
}

/// The addresses of a cluster: its network, cut into subnets of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// The network from which subnets are taken.
    pub(crate) cidr: Ipv4Net,
    /// Prefix length of every subnet.
    pub(crate) node_prefix: u8,
}

impl From<&RuntimeOptions> for Cluster {
    fn from(options: &RuntimeOptions) -> Self {
        Self {
            cidr: options.cluster_cidr,
            node_prefix: options.node_prefix,
        }
    }
}

impl Cluster {
    /// Reads a node's subnet from a request.
    pub(crate) fn parse_subnet(&self, value: &str) -> Result<Ipv4Net, SubnetError> {
        let subnet = match value.parse::<Ipv4Net>() {
            // One way to write a subnet: the parser also takes leading zeros, which others
            // read as octal.
            Ok(subnet) if subnet.to_string() == value => subnet,
            _ => return Err(self.not_ipv4(value)),
        };
        let network = subnet.trunc();
        if network != subnet {
            return Err(SubnetError::HostBits {
                value: subnet,
                network,
            });
        }
        if subnet.prefix_len() != self.node_prefix {
            return Err(SubnetError::Prefix {
                value: subnet,
                expected: self.node_prefix,
            });
        }
        if !self.cidr.contains(&subnet) {
            return Err(SubnetError::OutsideCluster {
                value: subnet,
                cluster: self.cidr,
            });
        }
        if subnet.network() == self.cidr.network() {
            return Err(SubnetError::ZeroSubnet(subnet));
        }
        Ok(subnet)
    }

    /// Reads the subnet of another node than the one that owns `own`.
    pub(crate) fn parse_destination(
        &self,
        value: &str,
        own: Ipv4Net,
    ) -> Result<Ipv4Net, SubnetError> {
        let destination = self.parse_subnet(value)?;
        if destination == own {
            return Err(SubnetError::Own(own));
        }
        Ok(destination)
    }

    /// Whether `net` is a subnet this cluster hands out, by the same rules as requests.
    pub(crate) fn is_node_subnet(&self, net: Ipv4Net) -> bool {
        net.prefix_len() == self.node_prefix
            && net.trunc() == net
            && self.cidr.contains(&net)
            && net.network() != self.cidr.network()
    }

    /// The subnet of this cluster that `address` lies in.
    pub(crate) fn subnet_of(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let subnet = Ipv4Net::new(address, self.node_prefix).ok()?.trunc();
        self.is_node_subnet(subnet).then_some(subnet)
    }

    fn not_ipv4(&self, value: &str) -> SubnetError {
        if value.parse::<Ipv6Net>().is_ok() || value.parse::<Ipv6Addr>().is_ok() {
            return SubnetError::Ipv6(value.to_owned());
        }
        SubnetError::NotACidr {
            // Enough to recognise it by; a request may be as long as a message.
            value: value.chars().take(64).collect(),
            example: self.example(),
        }
    }

    /// The first subnet that is handed out.
    fn example(&self) -> Ipv4Net {
        let size = 1_u32 << (32 - u32::from(self.node_prefix.clamp(1, 32)));
        let address = u32::from(self.cidr.network()).saturating_add(size);
        Ipv4Net::new(Ipv4Addr::from(address), self.node_prefix).unwrap_or(self.cidr)
    }
}

/// The node's own address in its subnet, which is the gateway of its containers.
pub(crate) fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: Cluster = Cluster {
        cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16),
        node_prefix: 24,
    };

    fn refusal(value: &str) -> String {
        CLUSTER.parse_subnet(value).unwrap_err().to_string()
    }

    #[test]
    fn every_subnet_that_the_control_plane_hands_out_is_accepted() {
        for third in 1..=255 {
            let text = format!("10.42.{third}.0/24");
            assert_eq!(CLUSTER.parse_subnet(&text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_cidr_is_refused_with_an_example() {
        for value in [
            "",
            "x",
            "10.42.1.0",
            "10.42.1.0/",
            "10.42.1.0/33",
            "10.42.1/24",
            "10.42.01.0/24",
            " 10.42.1.0/24",
        ] {
            let text = refusal(value);
            assert!(text.contains("10.42.1.0/24"), "{value:?}: {text}");
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_network() {
        assert_eq!(
            refusal("10.42.1.7/24"),
            "10.42.1.7/24 has host bits set: the network is 10.42.1.0/24"
        );
    }

    #[test]
    fn another_prefix_length_is_refused() {
        assert!(refusal("10.42.0.0/16").contains("is a /16: a node's subnet is a /24"));
        assert!(refusal("10.42.1.0/25").contains("is a /25"));
        assert!(refusal("0.0.0.0/0").contains("is a /0"));
    }

    #[test]
    fn a_subnet_outside_the_cluster_is_refused() {
        assert!(refusal("192.168.1.0/24").contains("outside the cluster CIDR 10.42.0.0/16"));
        assert!(refusal("10.43.0.0/24").contains("outside"));
    }

    #[test]
    fn the_zero_subnet_is_refused() {
        assert!(refusal("10.42.0.0/24").contains("zero subnet"));
    }

    #[test]
    fn ipv6_is_refused_by_name() {
        for value in ["fd00:42::/64", "::/0", "fd00::1"] {
            assert!(refusal(value).contains("IPv6"), "{value}");
        }
    }

    #[test]
    fn the_nodes_own_subnet_is_no_destination() {
        let own = "10.42.1.0/24".parse().unwrap();
        assert_eq!(
            CLUSTER.parse_destination("10.42.1.0/24", own),
            Err(SubnetError::Own(own))
        );
        assert!(CLUSTER.parse_destination("10.42.2.0/24", own).is_ok());
    }

    #[test]
    fn a_cluster_with_other_prefixes_follows_the_same_rules() {
        let cluster = Cluster {
            cidr: "172.16.0.0/20".parse().unwrap(),
            node_prefix: 26,
        };
        assert!(cluster.parse_subnet("172.16.0.64/26").is_ok());
        assert!(cluster.parse_subnet("172.16.0.0/26").is_err());
        assert!(cluster.parse_subnet("172.16.1.0/24").is_err());
        assert!(cluster.parse_subnet("172.16.16.0/26").is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_obeys_every_rule(value in "[0-9./]{0,20}|10\\.42\\.[0-9]{1,3}\\.[0-9]{1,3}/[0-9]{1,2}|\\PC{0,40}") {
            if let Ok(subnet) = CLUSTER.parse_subnet(&value) {
                prop_assert_eq!(subnet.to_string(), value);
                prop_assert!(CLUSTER.is_node_subnet(subnet));
                prop_assert_eq!(subnet.prefix_len(), 24);
                prop_assert_eq!(&subnet.network().octets()[..2], &[10, 42]);
                prop_assert!(subnet.network().octets()[2] > 0);
                prop_assert_eq!(CLUSTER.subnet_of(gateway(subnet)), Some(subnet));
            }
        }
    }
}
