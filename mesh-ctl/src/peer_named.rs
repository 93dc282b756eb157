//! Which peer somebody means.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use mesh_client::mesh::{Peer, PeerStatus};

/// A peer by its host's name, its subnet, its underlay address or an address in its subnet.
pub(crate) fn peer_named<'a>(text: &str, peers: &'a [PeerStatus]) -> anyhow::Result<&'a Peer> {
    let peers = peers.iter().filter_map(|status| status.peer.as_ref());
    let address = text.parse::<Ipv4Addr>().ok();
    let is_meant = |peer: &&Peer| {
        peer.subnet == text
            || peer.host_address == text
            || address.is_some_and(|address| holds(&peer.subnet, address))
            || !text.is_empty() && peer.hostname == text
    };
    let mut meant = peers.filter(is_meant);
    let first = meant.next().with_context(|| {
        format!(
            "{text:?} is no peer: neither a host's name, nor a peer's subnet or underlay address, nor an address in a \
             peer's subnet"
        )
    })?;
    if let Some(second) = meant.next() {
        bail!(
            "{text:?} is the name of several peers, {} and {}: name one by its subnet",
            first.subnet,
            second.subnet
        );
    }
    Ok(first)
}

/// Whether a subnet, as the runtime writes it, has that address.
fn holds(subnet: &str, address: Ipv4Addr) -> bool {
    let Some((network, prefix)) = subnet.split_once('/') else {
        return false;
    };
    let (Ok(network), Ok(prefix)) = (network.parse::<Ipv4Addr>(), prefix.parse::<u32>()) else {
        return false;
    };
    let mask = u32::MAX
        .checked_shl(32_u32.saturating_sub(prefix))
        .unwrap_or(0);
    u32::from(network) & mask == u32::from(address) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Vec<PeerStatus> {
        let peer = |last: u8, hostname: &str| PeerStatus {
            peer: Some(Peer {
                subnet: format!("10.42.{last}.0/24"),
                host_address: format!("192.0.2.{}", last + 1),
                hostname: hostname.to_owned(),
                ..Peer::default()
            }),
            ..PeerStatus::default()
        };
        vec![
            peer(2, "host2"),
            peer(3, "twin"),
            peer(4, "twin"),
            peer(5, ""),
        ]
    }

    #[test]
    fn a_peer_is_meant_by_whatever_it_alone_has() {
        for text in ["host2", "10.42.2.0/24", "192.0.2.3", "10.42.2.255"] {
            assert_eq!(
                peer_named(text, &peers()).unwrap().hostname,
                "host2",
                "{text}"
            );
        }
        for text in ["", "host9", "10.42.9.1", "10.42.2.0/25"] {
            let error = peer_named(text, &peers()).unwrap_err().to_string();
            assert!(error.contains("is no peer"), "{error}");
        }
        let error = peer_named("twin", &peers()).unwrap_err().to_string();
        assert!(error.contains("10.42.3.0/24 and 10.42.4.0/24"), "{error}");
    }
}
