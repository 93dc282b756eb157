//! Which subnets a pool has, and which of their addresses containers have.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;

/// The longest and the shortest subnet that a pool has: two to the power of 16 addresses and 4.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=30;

/// Why a container cannot have an address of a node's subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The subnet's first, which names the subnet itself.
    Network,
    /// The second, which is the node's own.
    Gateway,
    /// The last, which is for everybody in it (RFC 919).
    Broadcast,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "the address of the network itself",
            Self::Gateway => "the node's own address, the gateway of its containers",
            Self::Broadcast => "the broadcast address",
        })
    }
}

/// The node's own address in its subnet, which is the gateway of its containers.
pub fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}

/// Whether a pool can have this subnet: /16 to /30, without host bits.
pub(crate) fn is_subnet(subnet: Ipv4Net) -> bool {
    PREFIXES.contains(&subnet.prefix_len()) && subnet.trunc() == subnet
}

/// How many addresses containers can have in `subnet`.
pub(crate) fn capacity(subnet: Ipv4Net) -> u32 {
    (u32::from(subnet.broadcast()) - u32::from(subnet.network())).saturating_sub(2)
}

/// The addresses that containers can have, in ascending order.
pub(crate) fn assignable(subnet: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(gateway(subnet)).saturating_add(1);
    (first..u32::from(subnet.broadcast())).map(Ipv4Addr::from)
}

/// Why no container can have `address`, which lies in `subnet`; `None` if one can.
pub(crate) fn reserved(subnet: Ipv4Net, address: Ipv4Addr) -> Option<Reserved> {
    if address == subnet.network() {
        Some(Reserved::Network)
    } else if address == gateway(subnet) {
        Some(Reserved::Gateway)
    } else if address == subnet.broadcast() {
        Some(Reserved::Broadcast)
    } else {
        None
    }
}

/// Whether a container can have `address` in `subnet`.
pub(crate) fn is_assignable(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    subnet.contains(&address) && reserved(subnet, address).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_all_addresses_but_three() {
        for prefix in PREFIXES {
            let subnet = Ipv4Net::new(Ipv4Addr::new(10, 42, 0, 0), prefix).unwrap();
            let all: Vec<Ipv4Addr> = assignable(subnet).collect();
            assert_eq!(all.len(), capacity(subnet) as usize);
            assert_eq!(all.len() + 3, 1 << (32 - prefix));
            assert!(all.iter().all(|&address| is_assignable(subnet, address)));
            for none in [subnet.network(), gateway(subnet), subnet.broadcast()] {
                assert!(!all.contains(&none) && !is_assignable(subnet, none));
            }
        }
    }

    #[test]
    fn a_subnet_is_neither_longer_nor_shorter_than_a_nodes_and_has_no_host_bits() {
        for (text, good) in [
            ("10.42.0.0/16", true),
            ("10.42.1.4/30", true),
            ("10.42.0.0/15", false),
            ("10.42.1.0/31", false),
            ("10.42.1.1/24", false),
        ] {
            assert_eq!(is_subnet(text.parse().unwrap()), good, "{text}");
        }
    }
}
