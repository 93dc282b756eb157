//! Judges what was read. Pure.

pub(crate) mod addresses;
pub(crate) mod checksums;
pub(crate) mod entries;
pub(crate) mod filter;
pub(crate) mod forwarding;
pub(crate) mod ipsec;
pub(crate) mod limits;
pub(crate) mod routes;
pub(crate) mod tc;

/// The first few of many.
const SOME: usize = 3;

/// Names the first few of many, and says how many more there are.
pub(crate) fn some<T: ToString>(all: &[T]) -> String {
    let mut names: Vec<String> = all.iter().take(SOME).map(T::to_string).collect();
    if all.len() > SOME {
        names.push(format!("{} more", all.len() - SOME));
    }
    names.join(", ")
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::snapshot::{Address, Link, Mesh, Network, Peer};

    pub(crate) const ETH0: u32 = 2;
    pub(crate) const ETH1: u32 = 3;
    pub(crate) const BRIDGE: u32 = 10;
    pub(crate) const OVERLAY: u32 = 11;

    /// Node 192.0.2.2 with 10.42.1.0/24, and host2 and host3 beside it.
    pub(crate) fn mesh() -> Mesh {
        let peer = |number: u8| Peer {
            name: format!("host{number}"),
            subnet: format!("10.42.{number}.0/24").parse().unwrap(),
            address: format!("192.0.2.{}", number + 1).parse().unwrap(),
        };
        Mesh {
            overlay: Some(OVERLAY),
            bridge: Some(BRIDGE),
            subnet: Some("10.42.1.0/24".parse().unwrap()),
            host_address: Some("192.0.2.2".parse().unwrap()),
            containers: Vec::new(),
            port: 4789,
            peers: vec![peer(2), peer(3)],
        }
    }

    /// Its interfaces and addresses.
    pub(crate) fn network() -> Network {
        let link = |index: u32, name: &str, kind: &str, mac: u8| Link {
            index,
            name: name.to_owned(),
            kind: kind.to_owned(),
            mac: Some([2, 0, 0, 0, 0, mac]),
            ..Link::default()
        };
        let mut links = vec![
            link(ETH0, "eth0", "", 2),
            link(ETH1, "eth1", "", 3),
            link(BRIDGE, "quilt0", "bridge", 0),
            link(OVERLAY, "vxlan100", "vxlan", 0),
        ];
        links[2].mac = Some(mesh_layout::bridge_mac([10, 42, 1, 0]));
        links[3].mac = Some(mesh_layout::overlay_mac([10, 42, 1, 0]));
        links[3].vxlan = Some((100, 4789));
        let address = |link, text: &str| Address {
            link,
            address: text.parse().unwrap(),
        };
        Network {
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            addresses: vec![
                address(ETH0, "192.0.2.2/24"),
                address(BRIDGE, "10.42.1.1/24"),
            ],
            ..Network::default()
        }
    }

    #[test]
    fn of_many_the_first_are_named() {
        assert_eq!(super::some(&[1, 2]), "1, 2");
        assert_eq!(super::some(&[1, 2, 3, 4, 5]), "1, 2, 3, 2 more");
    }
}
