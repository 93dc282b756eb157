//! Which pools of addresses there are: one, the node's subnet, under three names. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// What a pool is called by whoever names none. Docker compares any other with the routes of its host, among which the subnet's
/// own is (`checkOverlaps`, libnetwork/ipams/remote/remote.go), and asks again and again for one that is free.
const ANY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// What this node leases addresses of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Its subnet.
    pub(crate) subnet: Ipv4Net,
    /// The next hop of its containers.
    pub(crate) gateway: Ipv4Addr,
    /// The network that all nodes' subnets are of.
    pub(crate) cluster: Ipv4Net,
}

/// Why a pool is none of the mesh's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoolError {
    #[error("pool {0:?} is no network of IPv4, such as 10.42.0.0/16")]
    NotANetwork(String),
    #[error(
        "pool {given} is not the mesh's: containers of this node have addresses of {}; leave --subnet out, or give {}, which is \
         the same on every node", node.subnet, node.cluster
    )]
    OfOthers { given: Ipv4Net, node: Node },
    #[error("gateway {given} is not this node's, which is {gateway}: leave --gateway out")]
    Gateway { given: String, gateway: Ipv4Addr },
}

impl Node {
    /// The pool that is wished, empty for any.
    pub(crate) fn pool(&self, wished: &str) -> Result<Ipv4Net, PoolError> {
        if wished.is_empty() {
            return Ok(ANY);
        }
        let given: Ipv4Net = wished
            .parse()
            .map_err(|_| PoolError::NotANetwork(wished.chars().take(48).collect()))?;
        match [ANY, self.subnet, self.cluster].contains(&given) {
            true => Ok(given),
            false => Err(PoolError::OfOthers { given, node: *self }),
        }
    }

    /// The gateway, if it is that one or none that is wished.
    pub(crate) fn gateway(&self, wished: &str) -> Result<Ipv4Net, PoolError> {
        let is_ours = wished.is_empty() || wished.parse() == Ok(self.gateway);
        match is_ours {
            true => Ok(self.with_prefix(self.gateway)),
            false => Err(PoolError::Gateway {
                given: wished.chars().take(48).collect(),
                gateway: self.gateway,
            }),
        }
    }

    /// An address with the prefix of the subnet.
    pub(crate) fn with_prefix(&self, address: Ipv4Addr) -> Ipv4Net {
        Ipv4Net::new(address, self.subnet.prefix_len()).unwrap_or(address.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            subnet: "10.42.1.0/24".parse().unwrap(),
            gateway: "10.42.1.1".parse().unwrap(),
            cluster: "10.42.0.0/16".parse().unwrap(),
        }
    }

    #[test]
    fn the_mesh_has_one_pool_under_three_names_and_those_of_others_are_refused_by_name() {
        for (wished, pool) in [
            ("", "0.0.0.0/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.42.1.0/24", "10.42.1.0/24"),
            ("10.42.0.0/16", "10.42.0.0/16"),
        ] {
            assert_eq!(node().pool(wished).unwrap().to_string(), pool);
        }
        for wished in [
            "10.42.2.0/24",
            "172.20.0.0/16",
            "10.42.1.0/25",
            "10.0.0.0/8",
        ] {
            let refused = node().pool(wished).unwrap_err().to_string();
            assert!(refused.contains(wished), "{refused}");
            assert!(refused.contains("10.42.1.0/24"), "{refused}");
        }
        for wished in ["10.42.1.0", "fd00::/64", "mesh", "10.42.0.0/33"] {
            let refused = node().pool(wished).unwrap_err();
            assert_eq!(refused, PoolError::NotANetwork(wished.to_owned()));
        }
    }

    #[test]
    fn the_gateway_is_the_nodes() {
        for wished in ["", "10.42.1.1"] {
            assert_eq!(node().gateway(wished).unwrap().to_string(), "10.42.1.1/24");
        }
        let refused = node().gateway("10.42.1.254").unwrap_err().to_string();
        assert!(refused.contains("10.42.1.254") && refused.contains("10.42.1.1"));
    }
}
