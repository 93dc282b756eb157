mod properties;
mod registered;

use super::*;
use crate::desired::holders::{Contest, contests};
use crate::observed::{
    Forwarding, Link, Neighbour,
    containers::{Container, FarEnd},
};

const BRIDGE: u32 = 2;
const PORT: u32 = 7;
const MAC: Mac = [2, 0, 0, 0, 0, 9];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 9);
const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);

fn link(index: u32) -> Link {
    Link {
        index,
        name: format!("link{index}"),
        kind: LinkKind::Veth,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1450,
        up: true,
        master: (index != BRIDGE).then_some(BRIDGE),
        far_end: (index != BRIDGE).then_some(far_end(index)),
        filters_vlans: false,
        near_end: None,
        hairpin: false,
    }
}

fn far_end(port: u32) -> FarEnd {
    FarEnd {
        namespace: i32::try_from(port).unwrap(),
        link: 2,
    }
}

fn container(port: u32, mac: Mac, addresses: &[Ipv4Addr]) -> Container {
    Container {
        far_end: far_end(port),
        interface: Some(Interface {
            mac: Some(mac),
            up: true,
            addresses: addresses.iter().copied().collect(),
        }),
    }
}

fn neighbour(address: Ipv4Addr, mac: Mac) -> Neighbour {
    Neighbour {
        link: BRIDGE,
        address,
        mac: Some(mac),
        state: NeighbourState::Learnt,
    }
}

fn forwarding(port: u32, mac: Mac) -> Forwarding {
    Forwarding {
        link: port,
        mac,
        remote: None,
        bridge: Some(BRIDGE),
        permanent: false,
        pinned: false,
        sticky: false,
    }
}

/// One port, and nothing known of what is behind it.
fn one_port() -> Observed {
    let mut bridge = link(BRIDGE);
    bridge.kind = LinkKind::Bridge;
    Observed {
        links: [(BRIDGE, bridge), (PORT, link(PORT))].into(),
        ..Observed::default()
    }
}

fn one_that_spoke() -> Observed {
    Observed {
        neighbours: vec![neighbour(ADDRESS, MAC)],
        forwarding: vec![forwarding(PORT, MAC)],
        ..one_port()
    }
}

fn one_that_is_silent() -> Observed {
    Observed {
        containers: [(PORT, container(PORT, MAC, &[ADDRESS]))].into(),
        ..one_port()
    }
}

fn found(observed: &Observed) -> BTreeMap<Ipv4Addr, EndpointPath> {
    endpoints(observed, BRIDGE, SUBNET, &BTreeMap::new())
}

/// The endpoint where a container is known to hold the address.
fn at(link: u32, mac: Mac) -> BTreeMap<Ipv4Addr, EndpointPath> {
    let held = true;
    [(ADDRESS, EndpointPath { link, mac, held })].into()
}

/// The endpoint where packets alone tell of it.
fn learnt_at(link: u32, mac: Mac) -> BTreeMap<Ipv4Addr, EndpointPath> {
    let held = false;
    [(ADDRESS, EndpointPath { link, mac, held })].into()
}

#[test]
fn a_silent_container_is_an_endpoint() {
    assert_eq!(found(&one_that_is_silent()), at(PORT, MAC));
}

#[test]
fn a_container_that_host_and_bridge_have_seen_is_one_where_nobody_may_look_inside() {
    assert_eq!(found(&one_that_spoke()), learnt_at(PORT, MAC));
}

#[test]
fn what_bpf_redirect_peer_would_drop_is_no_endpoint() {
    type Break = fn(&mut Link);
    let breaks: [Break; 3] = [
        |port| port.far_end = None,
        |port| port.master = None,
        |port| port.kind = LinkKind::Other("macvlan".to_owned()),
    ];
    for break_port in breaks {
        for mut observed in [one_that_spoke(), one_that_is_silent()] {
            break_port(observed.links.get_mut(&PORT).unwrap());
            assert_eq!(found(&observed), BTreeMap::new());
        }
    }
}

#[test]
fn a_container_that_is_down_keeps_what_it_holds() {
    let mut observed = one_that_is_silent();
    look(&mut observed);
    observed.links.insert(3, link(3));
    let other = container(3, [2, 0, 0, 0, 0, 10], &[ADDRESS]);
    observed.containers.insert(3, other);
    let mut port_down = observed.clone();
    port_down.links.get_mut(&PORT).unwrap().up = false;
    let inside = observed.containers.get_mut(&PORT).unwrap();
    inside.interface.as_mut().unwrap().up = false;
    for mut observed in [observed, port_down] {
        look(&mut observed);
        assert_eq!(found(&observed), at(PORT, MAC));
    }
}

#[test]
fn an_unresolved_neighbour_or_a_ports_own_address_is_no_endpoint() {
    let mut observed = one_that_spoke();
    observed.neighbours[0].state = NeighbourState::Unusable;
    assert_eq!(found(&observed), BTreeMap::new());
    let mut observed = one_that_spoke();
    observed.forwarding[0].permanent = true;
    assert_eq!(found(&observed), BTreeMap::new());
}

#[test]
fn addresses_that_no_container_may_hold_are_no_endpoints() {
    for address in [
        [10, 42, 1, 0],
        [10, 42, 1, 1],
        [10, 42, 1, 255],
        [192, 0, 2, 9],
    ] {
        let mut observed = one_that_is_silent();
        let address = Ipv4Addr::from(address);
        observed.containers = [(PORT, container(PORT, MAC, &[address]))].into();
        observed.neighbours = vec![neighbour(address, MAC)];
        observed.forwarding = vec![forwarding(PORT, MAC)];
        assert_eq!(found(&observed), BTreeMap::new(), "{address}");
    }
}

#[test]
fn an_address_that_the_container_has_given_up_is_no_endpoint_though_the_host_remembers_it() {
    let mut observed = one_that_spoke();
    let other = Ipv4Addr::new(10, 42, 1, 10);
    observed.containers = [(PORT, container(PORT, MAC, &[other]))].into();
    assert_eq!(found(&observed).keys().collect::<Vec<_>>(), [&other]);
}

#[test]
fn what_is_behind_a_bridge_inside_the_container_is_learnt() {
    let mut observed = one_that_spoke();
    observed.containers = [(PORT, container(PORT, [2, 0, 0, 0, 0, 8], &[]))].into();
    assert_eq!(found(&observed), learnt_at(PORT, MAC));
}

#[test]
fn a_container_made_again_with_the_same_address_has_it_once_the_old_one_is_gone() {
    let new = [2, 0, 0, 0, 0, 10];
    let mut observed = one_that_is_silent();
    look(&mut observed);
    observed.links.insert(8, link(8));
    observed.containers.insert(8, container(8, new, &[ADDRESS]));
    look(&mut observed);
    assert_eq!(found(&observed), at(PORT, MAC), "both are there");
    observed.links.remove(&PORT);
    observed.containers.remove(&PORT);
    look(&mut observed);
    assert_eq!(found(&observed), at(8, new));
}

#[test]
fn a_virtual_address_moves_when_the_one_that_held_it_gives_it_up() {
    let other = [2, 0, 0, 0, 0, 10];
    let mut observed = one_that_is_silent();
    observed.links.insert(8, link(8));
    observed.containers.insert(8, container(8, other, &[]));
    look(&mut observed);
    observed.containers.insert(PORT, container(PORT, MAC, &[]));
    observed
        .containers
        .insert(8, container(8, other, &[ADDRESS]));
    look(&mut observed);
    assert_eq!(found(&observed), at(8, other));
}

#[test]
fn what_is_contested_is_told_with_the_one_that_has_it_and_those_that_do_not() {
    let mut observed = one_that_is_silent();
    look(&mut observed);
    for port in [3, 8] {
        observed.links.insert(port, link(port));
        let thief = container(
            port,
            [2, 0, 0, 0, 1, u8::try_from(port).unwrap()],
            &[ADDRESS],
        );
        observed.containers.insert(port, thief);
    }
    look(&mut observed);
    let contest = Contest {
        address: ADDRESS,
        holder: "link7".to_owned(),
        by_call: false,
        others: vec!["link3".to_owned(), "link8".to_owned()],
    };
    let told = contests(&observed, BRIDGE, SUBNET, &BTreeMap::new());
    assert_eq!(told, [contest]);
    assert_eq!(found(&observed), at(PORT, MAC));
}

#[test]
fn a_container_with_anothers_mac_address_or_the_bridges_is_no_endpoint() {
    let stolen = |mac| {
        let mut observed = one_that_is_silent();
        look(&mut observed);
        observed.links.insert(8, link(8));
        let other = Ipv4Addr::new(10, 42, 1, 10);
        observed.containers.insert(8, container(8, mac, &[other]));
        look(&mut observed);
        observed
    };
    for mac in [MAC, link(BRIDGE).mac.unwrap()] {
        assert_eq!(found(&stolen(mac)), at(PORT, MAC));
    }
    assert_eq!(found(&stolen([2, 0, 0, 0, 0, 12])).len(), 2);
}

#[test]
fn a_mac_address_is_the_first_containers_that_has_it() {
    let mut observed = one_that_is_silent();
    look(&mut observed);
    observed.links.insert(3, link(3));
    observed.containers.insert(3, container(3, MAC, &[]));
    look(&mut observed);
    assert_eq!(
        macs(&observed, BRIDGE, &BTreeMap::new()),
        [(MAC, PORT)].into()
    );
}

#[test]
fn of_two_containers_with_one_address_the_one_that_the_host_talks_to_has_it() {
    let mut observed = one_that_spoke();
    observed.links.insert(3, link(3));
    for (port, mac) in [(PORT, MAC), (3, [2, 0, 0, 0, 0, 10])] {
        let container = container(port, mac, &[ADDRESS]);
        observed.containers.insert(port, container);
    }
    assert_eq!(found(&observed), at(PORT, MAC));
}

/// Takes a look, as the loop does: who holds what is remembered.
fn look(observed: &mut Observed) {
    observed.holders = observed.holders.after(observed, BRIDGE, &BTreeMap::new());
}

#[test]
fn a_call_stands_above_what_is_seen_and_learnt() {
    let mut observed = one_that_spoke();
    observed.containers = [(PORT, container(PORT, MAC, &[ADDRESS]))].into();
    observed.links.insert(8, link(8));
    let by_call = |mac| {
        let interface = "link8".to_owned();
        [(
            ADDRESS,
            AttachedEndpoint {
                link: 8,
                interface,
                mac,
                strict: false,
            },
        )]
        .into()
    };
    let mac = [2, 0, 0, 0, 0, 11];
    let shown = endpoints(&observed, BRIDGE, SUBNET, &by_call(Some(mac)));
    assert_eq!(shown, at(8, mac));
    let shown = endpoints(&observed, BRIDGE, SUBNET, &by_call(None));
    assert_eq!(shown, BTreeMap::new(), "its MAC address is not known yet");
    observed.containers.insert(8, container(8, mac, &[]));
    let shown = endpoints(&observed, BRIDGE, SUBNET, &by_call(None));
    assert_eq!(shown, at(8, mac));
}
