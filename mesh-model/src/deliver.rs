//! The last step to a container.

use mesh_layout::{ETHERNET_LEN, ETHERTYPE_IPV4, Endpoint};

use crate::{Ecn, Ethernet, Node, Redirect, Verdict, checksum::set_mark, decrement_ttl};

/// The inner `frame` as the container gets it: from the gateway, one hop later.
/// It arrives with the congestion mark `mark`.
pub(crate) fn deliver(
    node: &Node,
    endpoint: &Endpoint,
    frame: &[u8],
    mark: Ecn,
) -> (Verdict, Vec<u8>) {
    let ethernet = Ethernet {
        destination: endpoint.mac,
        source: node.config.bridge_mac,
        ethertype: ETHERTYPE_IPV4,
    };
    let mut ip = frame[ETHERNET_LEN..].to_vec();
    set_mark(&mut ip, mark);
    decrement_ttl(&mut ip);
    let verdict = Verdict::Redirect(Redirect::Container {
        link: endpoint.link,
    });
    (verdict, [&ethernet.bytes()[..], &ip].concat())
}
