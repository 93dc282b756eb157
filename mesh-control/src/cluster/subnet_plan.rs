//! How the cluster CIDR is divided into the subnets that nodes lease.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

use crate::cluster::next_subnet::Range;

/// The longest node prefix: a /30 still has room for the gateway (.1) and one container.
const LONGEST_NODE_PREFIX: u8 = 30;

/// The shortest cluster prefix. Nothing shorter is a private or otherwise sensible overlay range.
const SHORTEST_CLUSTER_PREFIX: u8 = 8;

/// Why a cluster CIDR, or a node prefix inside it, cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The text is not a CIDR at all.
    #[error("{0:?} is not a CIDR; write it as ADDRESS/PREFIX, for example 10.42.0.0/16")]
    NotACidr(String),
    /// The overlay is IPv4.
    #[error("{0} is an IPv6 CIDR, and the cluster CIDR must be IPv4, for example 10.42.0.0/16")]
    Ipv6(IpNet),
    /// The address has bits set to the right of the prefix.
    #[error("{given} has host bits set; the network it lies in is {network}")]
    HostBits {
        /// What was given.
        given: Ipv4Net,
        /// The same with the host bits cleared.
        network: Ipv4Net,
    },
    /// The range is not one that containers can have addresses from.
    #[error("{0} is not a range of ordinary unicast addresses; use one such as 10.42.0.0/16")]
    NotUnicast(Ipv4Net),
    /// The cluster prefix is shorter than any sensible overlay.
    #[error(
        "{0} is too large for a cluster CIDR: its prefix must be /{SHORTEST_CLUSTER_PREFIX} or longer"
    )]
    TooLarge(Ipv4Net),
    /// The node prefix does not divide the cluster CIDR.
    #[error(
        "node prefix /{node_prefix} leaves no subnet to hand out in {cluster}: it must be longer than \
         /{} (subnet zero is never handed out) and at most /{LONGEST_NODE_PREFIX}",
        cluster.prefix_len()
    )]
    NodePrefix {
        /// The cluster CIDR it was to divide.
        cluster: Ipv4Net,
        /// The prefix length that does not fit.
        node_prefix: u8,
    },
}

/// Why a CIDR does not stand for subnets of a plan.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotOfPlan {
    /// It is not in the cluster.
    #[error("{given} is not inside the cluster CIDR {cluster}")]
    Outside {
        /// What was given.
        given: Ipv4Net,
        /// The cluster CIDR.
        cluster: Ipv4Net,
    },
    /// It is not one whole subnet, or not at least one.
    #[error("{given} does not fit the subnets of the nodes, which are /{node_prefix}")]
    Length {
        /// What was given.
        given: Ipv4Net,
        /// The prefix length of the subnets.
        node_prefix: u8,
    },
    /// It is the zero subnet.
    #[error("{0} is the zero subnet, which is never handed out")]
    Zero(Ipv4Net),
}

/// A subnet's position in the plan: 1 is the first that is handed out, 0 (the zero subnet) never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetIndex(u32);

impl SubnetIndex {
    /// The index of the first subnet handed out.
    pub const FIRST: Self = Self(1);

    /// The index with this number; `None` for zero, which is not handed out.
    pub fn new(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The number of this index, from 1.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// The cluster CIDR and the prefix length of each node's subnet, checked to fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetPlan {
    cluster: Ipv4Net,
    node_prefix: u8,
}

impl SubnetPlan {
    /// Divides `cluster` into subnets of `node_prefix` bits.
    ///
    /// # Errors
    ///
    /// [`PlanError`], when either cannot be used or no subnet beside the zero one is left.
    pub fn new(cluster: Ipv4Net, node_prefix: u8) -> Result<Self, PlanError> {
        if cluster.trunc() != cluster {
            return Err(PlanError::HostBits {
                given: cluster,
                network: cluster.trunc(),
            });
        }
        if cluster.prefix_len() < SHORTEST_CLUSTER_PREFIX {
            return Err(PlanError::TooLarge(cluster));
        }
        if !is_unicast(cluster.network()) || cluster.network().is_loopback() {
            return Err(PlanError::NotUnicast(cluster));
        }
        if node_prefix <= cluster.prefix_len() || node_prefix > LONGEST_NODE_PREFIX {
            return Err(PlanError::NodePrefix {
                cluster,
                node_prefix,
            });
        }
        Ok(Self {
            cluster,
            node_prefix,
        })
    }

    /// The cluster CIDR.
    pub fn cluster(&self) -> Ipv4Net {
        self.cluster
    }

    /// The prefix length of each node's subnet.
    pub fn node_prefix(&self) -> u8 {
        self.node_prefix
    }

    /// How many subnets can be handed out: 255 for a /16 divided into /24s.
    pub fn count(&self) -> u32 {
        // At most 22 bits apart (30 - 8), so the shift cannot overflow.
        (1_u32 << (self.node_prefix - self.cluster.prefix_len())) - 1
    }

    /// The subnet at `index`; `None` when the plan has no such subnet.
    pub fn subnet(&self, index: SubnetIndex) -> Option<Ipv4Net> {
        if index.number() > self.count() {
            return None;
        }
        let offset = index.number() << (32 - self.node_prefix);
        let network = u32::from(self.cluster.network()) | offset;
        Ipv4Net::new(Ipv4Addr::from(network), self.node_prefix).ok()
    }

    /// The position of a subnet of the plan.
    ///
    /// # Errors
    ///
    /// [`NotOfPlan`], when it is not one that is handed out.
    pub fn index(&self, subnet: Ipv4Net) -> Result<SubnetIndex, NotOfPlan> {
        if subnet.prefix_len() != self.node_prefix {
            return Err(NotOfPlan::Length {
                given: subnet,
                node_prefix: self.node_prefix,
            });
        }
        self.range(subnet).map(|range| range.first)
    }

    /// The subnets that a CIDR covers, without the zero subnet, which is not handed out anyway.
    ///
    /// # Errors
    ///
    /// [`NotOfPlan`], when it does not cover whole subnets of the plan.
    pub fn range(&self, cidr: Ipv4Net) -> Result<Range, NotOfPlan> {
        if !self.cluster.contains(&cidr) {
            return Err(NotOfPlan::Outside {
                given: cidr,
                cluster: self.cluster,
            });
        }
        if cidr.prefix_len() > self.node_prefix {
            return Err(NotOfPlan::Length {
                given: cidr,
                node_prefix: self.node_prefix,
            });
        }
        let number = |address: Ipv4Addr| {
            (u32::from(address) - u32::from(self.cluster.network())) >> (32 - self.node_prefix)
        };
        let first = number(cidr.network()).max(1);
        match (
            SubnetIndex::new(first),
            SubnetIndex::new(number(cidr.broadcast())),
        ) {
            (Some(first), Some(last)) => Ok(Range { first, last }),
            _ => Err(NotOfPlan::Zero(cidr)),
        }
    }
}

impl fmt::Display for SubnetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} divided into /{} subnets",
            self.cluster, self.node_prefix
        )
    }
}

/// Reads an IPv4 CIDR without host bits.
///
/// # Errors
///
/// [`PlanError`] that says which of these the text is not.
pub fn parse_cidr(text: &str) -> Result<Ipv4Net, PlanError> {
    match text.parse::<IpNet>() {
        Ok(IpNet::V4(net)) if net.trunc() == net => Ok(net),
        Ok(IpNet::V4(net)) => Err(PlanError::HostBits {
            given: net,
            network: net.trunc(),
        }),
        Ok(net @ IpNet::V6(_)) => Err(PlanError::Ipv6(net)),
        Err(_) => Err(PlanError::NotACidr(text.to_owned())),
    }
}

/// Whether one host can have this address: not 0.0.0.0/8 ("this network", RFC 1122 section 3.2.1.3),
/// not multicast (224.0.0.0/4) and not reserved or broadcast (240.0.0.0/4, RFC 1112 section 4).
pub(crate) fn is_unicast(address: Ipv4Addr) -> bool {
    (1..224).contains(&address.octets()[0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(cidr: &str, node_prefix: u8) -> Result<SubnetPlan, PlanError> {
        SubnetPlan::new(parse_cidr(cidr)?, node_prefix)
    }

    #[test]
    fn the_default_plan_runs_from_10_42_1_to_10_42_255() {
        let plan = plan("10.42.0.0/16", 24).unwrap();
        assert_eq!(plan.count(), 255);
        let at = |n| {
            plan.subnet(SubnetIndex::new(n).unwrap())
                .map(|s| s.to_string())
        };
        assert_eq!(at(1).as_deref(), Some("10.42.1.0/24"));
        assert_eq!(at(255).as_deref(), Some("10.42.255.0/24"));
        assert_eq!(at(256), None);
        assert_eq!(SubnetIndex::new(0), None);
    }

    #[test]
    fn a_plan_that_cannot_work_names_the_value_and_the_rule() {
        for (cidr, prefix, words) in [
            (
                "10.42.0.1/16",
                24,
                "10.42.0.1/16 has host bits set; the network it lies in is 10.42.0.0/16",
            ),
            ("fd00::/48", 64, "IPv6"),
            ("10.42.0.0", 24, "ADDRESS/PREFIX"),
            ("banana", 24, "\"banana\" is not a CIDR"),
            ("10.42.0.0/33", 24, "is not a CIDR"),
            ("10.42.0.0/16", 16, "node prefix /16 leaves no subnet"),
            ("10.42.0.0/16", 8, "node prefix /8 leaves no subnet"),
            ("10.42.0.0/16", 31, "at most /30"),
            ("10.42.0.0/30", 30, "node prefix /30 leaves no subnet"),
            ("0.0.0.0/0", 24, "too large"),
            ("0.0.0.0/8", 24, "unicast"),
            ("224.0.0.0/8", 24, "unicast"),
            ("240.0.0.0/8", 24, "unicast"),
            ("127.0.0.0/8", 24, "unicast"),
        ] {
            let message = plan(cidr, prefix).unwrap_err().to_string();
            assert!(message.contains(words), "{cidr} /{prefix}: {message}");
        }
    }

    #[test]
    fn a_plan_says_what_it_divides_into_what() {
        let plan = plan("10.42.0.0/16", 25).unwrap();
        assert_eq!(plan.cluster().to_string(), "10.42.0.0/16");
        assert_eq!(plan.node_prefix(), 25);
        assert_eq!(plan.to_string(), "10.42.0.0/16 divided into /25 subnets");
    }

    #[test]
    fn a_cidr_with_host_bits_is_none() {
        assert_eq!(
            parse_cidr("10.42.0.1/16"),
            Err(PlanError::HostBits {
                given: "10.42.0.1/16".parse().unwrap(),
                network: "10.42.0.0/16".parse().unwrap(),
            })
        );
    }

    #[test]
    fn the_largest_cluster_has_a_subnet_for_each_of_65535_nodes() {
        let plan = plan("10.0.0.0/8", 24).unwrap();
        assert_eq!(plan.count(), 65_535);
        let last = SubnetIndex::new(65_535).unwrap();
        assert_eq!(plan.subnet(last).unwrap().to_string(), "10.255.255.0/24");
        assert_eq!(plan.index(plan.subnet(last).unwrap()), Ok(last));
    }

    #[test]
    fn a_cidr_stands_for_the_whole_subnets_that_it_covers() {
        let plan = plan("10.42.0.0/16", 24).unwrap();
        let range = |cidr: &str| {
            let range = plan.range(cidr.parse().unwrap())?;
            Ok::<_, NotOfPlan>((range.first.number(), range.last.number()))
        };
        assert_eq!(range("10.42.7.0/24"), Ok((7, 7)));
        assert_eq!(range("10.42.128.0/17"), Ok((128, 255)));
        // The zero subnet is not handed out anyway.
        assert_eq!(range("10.42.0.0/23"), Ok((1, 1)));
        assert_eq!(range("10.42.0.0/16"), Ok((1, 255)));
        for (cidr, words) in [
            ("10.42.0.0/24", "zero subnet"),
            ("10.42.7.128/25", "which are /24"),
            ("10.43.0.0/24", "not inside the cluster CIDR 10.42.0.0/16"),
            ("10.0.0.0/8", "not inside"),
        ] {
            let message = range(cidr).unwrap_err().to_string();
            assert!(message.contains(words), "{cidr}: {message}");
        }
        assert!(plan.index("10.42.6.0/23".parse().unwrap()).is_err());
    }

    #[test]
    fn the_smallest_plan_has_one_subnet() {
        let plan = plan("192.168.7.0/29", 30).unwrap();
        assert_eq!(plan.count(), 1);
        assert_eq!(
            plan.subnet(SubnetIndex::FIRST).unwrap().to_string(),
            "192.168.7.4/30"
        );
    }

    proptest! {
        #[test]
        fn subnets_of_a_plan_lie_in_the_cluster_and_never_overlap(
            address in any::<u32>(), cluster_prefix in 8_u8..30, extra in 1_u8..22,
            a in any::<u32>(), b in any::<u32>(),
        ) {
            let cluster = Ipv4Net::new(Ipv4Addr::from(address), cluster_prefix).unwrap().trunc();
            let Ok(plan) = SubnetPlan::new(cluster, cluster_prefix + extra) else { return Ok(()) };
            let pick = |n: u32| SubnetIndex::new(1 + n % plan.count()).unwrap();
            let (a, b) = (pick(a), pick(b));
            let (one, other) = (plan.subnet(a).unwrap(), plan.subnet(b).unwrap());
            prop_assert!(cluster.contains(&one) && one.trunc() == one);
            prop_assert!(one.network() != cluster.network(), "the zero subnet was handed out");
            prop_assert_eq!(plan.index(one), Ok(a));
            prop_assert_eq!(a == b, one.contains(&other.network()) || other.contains(&one.network()));
        }
    }
}
