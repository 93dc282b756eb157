//! Whom a caller means. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{
    probe_endpoint::address_in,
    wanted::{
        peer::Peer,
        subnet::{Cluster, gateway},
    },
};

/// Names that a refusal lists.
const NAMED: usize = 8;

/// Whom a caller means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// As the caller wrote it.
    pub(crate) target: String,
    /// The address that is asked.
    pub(crate) address: Ipv4Addr,
    /// The peer's subnet; `None` for an address of this node.
    pub(crate) peer: Option<Ipv4Net>,
    /// Whether the address is the one that peers have for probes.
    pub(crate) probe_endpoint: bool,
}

/// What a node knows of itself and the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) cluster: Cluster,
    pub(crate) own: Ipv4Net,
    pub(crate) host: Option<Ipv4Addr>,
    pub(crate) peers: &'a BTreeMap<Ipv4Net, Peer>,
}

impl Known<'_> {
    /// Whom `target` means: a peer by its host name, subnet or underlay address, or an address of the overlay.
    ///
    /// # Errors
    ///
    /// Why nobody is meant, in words for whoever asked.
    pub(crate) fn resolve(&self, target: &str) -> Result<Subject, String> {
        if let Ok(address) = target.parse::<Ipv4Addr>() {
            return self.resolve_address(target, address);
        }
        if let Ok(subnet) = target.parse::<Ipv4Net>() {
            return match self.peers.contains_key(&subnet) {
                true => Ok(self.probed(target, subnet)),
                false if subnet == self.own => Err(format!(
                    "{subnet} is this node's own subnet: name a peer, or an address in it"
                )),
                false => Err(format!(
                    "{subnet} is no peer's subnet; {}",
                    self.peers_there_are()
                )),
            };
        }
        let named = |peer: &&Peer| peer.hostname.eq_ignore_ascii_case(target);
        let mut matching = self.peers.iter().filter(|(_, peer)| named(peer));
        let shown: String = target.chars().take(64).collect();
        match (matching.next(), matching.next()) {
            (Some((&subnet, _)), None) => Ok(self.probed(target, subnet)),
            (Some((one, _)), Some((another, _))) => Err(format!(
                "several peers are named {shown:?}: name one by its subnet ({one}, {another})"
            )),
            _ => Err(format!(
                "no peer is named {shown:?}; {}",
                self.peers_there_are()
            )),
        }
    }

    fn resolve_address(&self, target: &str, address: Ipv4Addr) -> Result<Subject, String> {
        let mut peers = self.peers.iter();
        if let Some((&subnet, _)) = peers.find(|(_, peer)| peer.address == address) {
            return Ok(self.probed(target, subnet));
        }
        if self.host == Some(address) {
            return Err(format!(
                "{address} is this node's own address on the underlay: name a peer"
            ));
        }
        let subnet = self.cluster.subnet_of(address).ok_or_else(|| {
            format!(
                "{address} is neither a peer's address on the underlay nor one of the overlay ({})",
                self.cluster.cidr
            )
        })?;
        if address == subnet.network() || address == subnet.broadcast() {
            return Err(format!(
                "{address} names the subnet {subnet}, and nobody in it"
            ));
        }
        let peer = (subnet != self.own).then_some(subnet);
        if let Some(peer) = peer
            && !self.peers.contains_key(&peer)
        {
            return Err(format!(
                "{address} is of {peer}, which is no peer's subnet; {}",
                self.peers_there_are()
            ));
        }
        if peer.is_none() && address_in(self.own) == Some(address) {
            return Err(format!(
                "{address} is this node's own endpoint for probes: ping it from another node"
            ));
        }
        Ok(Subject {
            target: target.to_owned(),
            address,
            peer,
            probe_endpoint: peer.is_some_and(|peer| address_in(peer) == Some(address)),
        })
    }

    /// A peer, by what it has for probes.
    fn probed(&self, target: &str, subnet: Ipv4Net) -> Subject {
        let probes = address_in(subnet);
        Subject {
            target: target.to_owned(),
            // A subnet that is too small for an endpoint has its gateway at least.
            address: probes.unwrap_or_else(|| gateway(subnet)),
            peer: Some(subnet),
            probe_endpoint: probes.is_some(),
        }
    }

    fn peers_there_are(&self) -> String {
        if self.peers.is_empty() {
            return "this node has no peers yet (quilt-mesh-agent brings them)".to_owned();
        }
        let name = |(subnet, peer): (&Ipv4Net, &Peer)| match peer.hostname.as_str() {
            "" => subnet.to_string(),
            name => name.to_owned(),
        };
        let mut names: Vec<String> = self.peers.iter().take(NAMED).map(name).collect();
        if self.peers.len() > NAMED {
            names.push(format!("{} more", self.peers.len() - NAMED));
        }
        format!("peers are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn peer(number: u8, hostname: &str) -> (Ipv4Net, Peer) {
        let peer = Peer {
            address: Ipv4Addr::new(192, 0, 2, number),
            hostname: hostname.to_owned(),
            suspect: false,
            mtu: None,
        };
        (net(&format!("10.42.{number}.0/24")), peer)
    }

    fn resolve(target: &str) -> Result<Subject, String> {
        let peers = [peer(2, "host2"), peer(3, "twin"), peer(4, "twin")].into();
        let known = Known {
            cluster: Cluster {
                cidr: net("10.42.0.0/16"),
                node_prefix: 24,
            },
            own: net("10.42.1.0/24"),
            host: Some(Ipv4Addr::new(192, 0, 2, 1)),
            peers: &peers,
        };
        known.resolve(target)
    }

    #[test]
    fn a_peer_is_meant_by_name_subnet_or_underlay_address_and_its_endpoint_for_probes_is_asked() {
        for target in ["host2", "HOST2", "10.42.2.0/24", "192.0.2.2", "10.42.2.254"] {
            let expected = Subject {
                target: target.to_owned(),
                address: Ipv4Addr::new(10, 42, 2, 254),
                peer: Some(net("10.42.2.0/24")),
                probe_endpoint: true,
            };
            assert_eq!(resolve(target), Ok(expected), "{target}");
        }
    }

    #[test]
    fn an_address_of_the_overlay_is_asked_itself() {
        for (target, peer) in [
            ("10.42.2.17", Some("10.42.2.0/24")),
            ("10.42.1.2", None),
            ("10.42.1.1", None),
        ] {
            let expected = Subject {
                target: target.to_owned(),
                address: target.parse().unwrap(),
                peer: peer.map(net),
                probe_endpoint: false,
            };
            assert_eq!(resolve(target), Ok(expected), "{target}");
        }
    }

    #[test]
    fn who_is_nobody_is_told_why_and_which_there_are() {
        for (target, words) in [
            (
                "host9",
                "no peer is named \"host9\"; peers are host2, twin, twin",
            ),
            (
                "twin",
                "several peers are named \"twin\": name one by its subnet (10.42.3.0/24, 10.42.4.0/24)",
            ),
            ("10.42.9.0/24", "10.42.9.0/24 is no peer's subnet"),
            ("10.42.1.0/24", "this node's own subnet"),
            (
                "10.42.9.7",
                "10.42.9.7 is of 10.42.9.0/24, which is no peer's subnet",
            ),
            ("10.42.2.0", "names the subnet"),
            ("10.42.2.255", "names the subnet"),
            ("192.0.2.1", "this node's own address on the underlay"),
            ("10.42.1.254", "this node's own endpoint for probes"),
            ("198.51.100.1", "neither a peer's address"),
        ] {
            let refusal = resolve(target).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
