use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_layout::VNI;

use super::*;
use crate::{
    observed::{Address, Link, LinkKind, NextHop, NextHops, Route, Routes, Vxlan},
    options::RuntimeOptions,
    wanted::peer::Peer,
};

const LOOPBACK: u32 = 1;
const OVERLAY: u32 = 2;
const NIC: u32 = 9;
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, mtu: u32) -> (u32, Link) {
    let link = Link {
        index,
        name: name.to_owned(),
        kind: LinkKind::Other(String::new()),
        mac: Some([2, 0, 0, 0, 0, 9]),
        mtu,
        up: true,
        master: None,
        far_end: None,
        filters_vlans: false,
        near_end: None,
        hairpin: false,
    };
    (index, link)
}

/// A host whose only card was plugged in after its VXLAN device was made.
fn host(addresses: &[(u32, &str)]) -> Observed {
    let addresses = addresses.iter().map(|&(link, address)| Address {
        link,
        address: net(address),
        global: true,
    });
    let (_, mut overlay) = link(OVERLAY, "vxlan100", 1450);
    overlay.kind = LinkKind::Vxlan(Vxlan {
        vni: VNI,
        ..Vxlan::default()
    });
    Observed {
        links: [
            link(LOOPBACK, "lo", 65_536),
            (OVERLAY, overlay),
            link(NIC, "eth0", 1500),
        ]
        .into(),
        addresses: addresses.collect(),
        ..Observed::default()
    }
}

fn leads(observed: &mut Observed, mtu: Option<u32>) {
    let next_hop = NextHop {
        address: PEER,
        link: NIC,
        mtu,
    };
    observed.next_hops = Arc::new(NextHops::new([(PEER, Some(next_hop))].into()));
}

fn computed(observed: &Observed, told: Option<u32>) -> Desired {
    let peer = Peer {
        address: PEER,
        hostname: String::new(),
        suspect: false,
        mtu: told,
    };
    let wanted = Wanted {
        subnet: Some(net("10.42.1.0/24")),
        host_address: Some(HOST),
        peers: Arc::new([(net("10.42.2.0/24"), peer)].into()),
        ..Wanted::default()
    };
    let settings = Settings::from(&RuntimeOptions::default());
    desired(&settings, &wanted, observed, None)
}

#[test]
fn a_device_of_ours_is_never_the_underlay_also_with_the_hosts_address() {
    let observed = host(&[(OVERLAY, "192.0.2.1/24"), (NIC, "192.0.2.1/24")]);
    let underlay = computed(&observed, None).underlay.unwrap();
    assert_eq!(underlay.interface, "eth0");
    assert_eq!(underlay.overlay_mtu, 1450);

    let observed = host(&[(OVERLAY, "192.0.2.1/24")]);
    let desired = computed(&observed, None);
    assert_eq!(desired.underlay, None);
    assert!(
        desired
            .problems
            .contains(&Problem::HostAddressNotHere(HOST))
    );
}

#[test]
fn of_an_address_on_loopback_the_mtu_is_that_of_the_cards() {
    let mut observed = host(&[(LOOPBACK, "192.0.2.1/32")]);
    let before = computed(&observed, None).underlay.unwrap();
    assert_eq!(
        (before.overlay_mtu, before.interface.as_str()),
        (1450, "eth0")
    );
    leads(&mut observed, None);
    let underlay = computed(&observed, None).underlay.unwrap();
    assert_eq!(underlay.overlay_mtu, 1450);
    assert_eq!(underlay.links, [(NIC, "eth0".to_owned())].into());
}

#[test]
fn an_mtu_that_is_smaller_than_everybody_counts_on_is_a_problem_that_names_the_interface() {
    let mut observed = host(&[(NIC, "192.0.2.1/24")]);
    let nic = observed.links.get_mut(&NIC).unwrap();
    nic.mtu = 1329;
    let problems = computed(&observed, None).problems;
    let named = problems
        .iter()
        .any(|it| it.to_string().contains("ip link set eth0 mtu 1500"));
    assert!(named, "{problems:?}");
    observed.links.get_mut(&NIC).unwrap().mtu = 1330;
    assert_eq!(computed(&observed, None).problems, []);
}

#[test]
fn an_address_of_the_clusters_network_elsewhere_is_a_problem_that_says_how_it_goes() {
    let observed = host(&[(NIC, "192.0.2.1/24"), (NIC, "10.42.7.1/24")]);
    let problems = computed(&observed, None).problems;
    let cure = "ip address delete 10.42.7.1/24 dev eth0";
    assert!(
        problems.iter().any(|it| it.to_string().contains(cure)),
        "{problems:?}"
    );
}

#[test]
fn a_route_of_somebody_else_to_a_part_of_a_peers_subnet_is_a_problem_that_says_how_it_goes() {
    let mut observed = host(&[(NIC, "192.0.2.1/24")]);
    let route = Route {
        destination: net("10.42.2.128/25"),
        gateway: Some(PEER),
        link: Some(NIC),
        source: None,
        metric: 0,
        protocol: 4,
        onlink: false,
        unicast: true,
        mtu: None,
    };
    observed.routes = Arc::new(Routes::from_iter([route.clone()]));
    let problems = computed(&observed, None).problems;
    let cure = "ip route delete 10.42.2.128/25";
    assert!(
        problems.iter().any(|it| it.to_string().contains(cure)),
        "{problems:?}"
    );
    // One that leads to no peer is nobody's business.
    let elsewhere = Route {
        destination: net("10.42.3.128/25"),
        ..route
    };
    observed.routes = Arc::new(Routes::from_iter([elsewhere]));
    assert_eq!(computed(&observed, None).problems, []);
}

/// The MTU of the route to the peer, and what the programs are told of it.
fn mtus(observed: &Observed, told: Option<u32>) -> (Option<u32>, u32) {
    let entries = computed(observed, told).entries;
    let subnet = net("10.42.2.0/24");
    (entries.routes[&subnet].mtu, entries.paths[&subnet].mtu)
}

#[test]
fn what_reaches_a_peer_is_the_least_of_what_the_way_carries_and_the_peer_takes_on_both_paths() {
    let mut observed = host(&[(NIC, "192.0.2.1/24")]);
    leads(&mut observed, None);
    assert_eq!(mtus(&observed, None), (None, 0));
    assert_eq!(mtus(&observed, Some(1450)), (None, 0));
    assert_eq!(
        mtus(&observed, Some(1500)),
        (None, 0),
        "more than this node has"
    );
    assert_eq!(mtus(&observed, Some(1300)), (Some(1300), 1300));
    leads(&mut observed, Some(1400));
    assert_eq!(mtus(&observed, None), (Some(1350), 1350));
    assert_eq!(mtus(&observed, Some(1300)), (Some(1300), 1300));
    // Less than everybody counts on is cut up on the underlay instead.
    leads(&mut observed, Some(600));
    assert_eq!(mtus(&observed, None), (Some(1280), 1280));
    assert_eq!(computed(&observed, None).problems, []);
}

#[test]
fn a_peer_whose_card_takes_less_than_everybody_counts_on_gets_no_more_and_is_named() {
    let mut observed = host(&[(NIC, "192.0.2.1/24")]);
    leads(&mut observed, None);
    assert_eq!(mtus(&observed, Some(1250)), (Some(1250), 1250));
    let problems = computed(&observed, Some(1250)).problems;
    let [problem] = &problems[..] else {
        panic!("{problems:?}");
    };
    assert!(problem.to_string().contains("peer 192.0.2.2"), "{problem}");
}
