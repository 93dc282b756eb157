//! The network that an engine's containers are in, as its operator writes it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// How an engine's network on the host's bridge is made. The default is what docs/CONTAINER_ENGINES.md
/// tells operators to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineNetwork {
    /// Whether the engine has a masquerading rule of its own.
    pub masquerade: bool,
    /// The part of the subnet that the engine gives addresses from; `None` for all of it.
    pub part: Option<Ipv4Net>,
    /// Whether Docker, from version 28 on, keeps others than its host from the network's containers, which is its own choice.
    pub protected: bool,
}

impl EngineNetwork {
    /// The first and the last address of the engine's part. The subnet's own last one is everybody's.
    pub(super) fn range(&self, bridge: Ipv4Net) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let part = self.part?;
        let last = match part.broadcast() == bridge.broadcast() {
            true => Ipv4Addr::from_bits(part.broadcast().to_bits().saturating_sub(1)),
            false => part.broadcast(),
        };
        Some((part.network(), last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_of_a_part_is_not_the_subnets() {
        let bridge = "10.42.1.1/24".parse().unwrap();
        let range = |part: &str| {
            let part = Some(part.parse().unwrap());
            let network = EngineNetwork {
                part,
                ..EngineNetwork::default()
            };
            let (first, last) = network.range(bridge).unwrap();
            [first.to_string(), last.to_string()]
        };
        assert_eq!(range("10.42.1.128/25"), ["10.42.1.128", "10.42.1.254"]);
        assert_eq!(range("10.42.1.64/26"), ["10.42.1.64", "10.42.1.127"]);
        assert_eq!(EngineNetwork::default().range(bridge), None);
    }
}
