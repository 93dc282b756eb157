//! The last step to a container.

use mesh_layout::{ETHERNET_LEN, ETHERTYPE_IPV4, Endpoint};

use crate::{Ethernet, Node, Redirect, Verdict, decrement_ttl};

/// The inner `frame` as the container gets it: from the gateway, one hop later.
pub(crate) fn deliver(node: &Node, endpoint: &Endpoint, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let ethernet = Ethernet {
        destination: endpoint.mac,
        source: node.config.bridge_mac,
        ethertype: ETHERTYPE_IPV4,
    };
    let mut ip = frame[ETHERNET_LEN..].to_vec();
    decrement_ttl(&mut ip);
    let verdict = Verdict::Redirect(Redirect::Container {
        link: endpoint.link,
    });
    (verdict, [&ethernet.bytes()[..], &ip].concat())
}
