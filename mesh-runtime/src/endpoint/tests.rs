use proptest::prelude::*;

use super::*;
use crate::kernel::{
    containers::{Container, FarEnd},
    observed::{Forwarding, Link, Neighbour},
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
    observed.holders = observed.holders.after(observed, BRIDGE);
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

fn any_mac() -> impl Strategy<Value = Mac> {
    (0_u8..5).prop_map(|last| [2, 0, 0, 0, 0, last])
}

/// Whether a MAC address at a port is neither the bridge's nor at another port.
fn is_own(
    observed: &Observed,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
    path: &EndpointPath,
) -> bool {
    let port = macs(observed, BRIDGE, attached).get(&path.mac).copied();
    port.is_none_or(|port| port == path.link) && Some(path.mac) != link(BRIDGE).mac
}

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        8 => (0_u8..6).prop_map(|last| Ipv4Addr::new(10, 42, 1, last)),
        1 => Just(Ipv4Addr::new(10, 42, 1, 255)),
        1 => Just(Ipv4Addr::new(10, 42, 2, 3)),
    ]
}

fn any_link(index: u32) -> impl Strategy<Value = Link> {
    (0..10, any::<bool>(), 0..10, 0..10).prop_map(move |(kind, up, master, far)| Link {
        kind: if kind == 0 {
            LinkKind::Other("macvlan".to_owned())
        } else {
            LinkKind::Veth
        },
        up,
        master: (master != 0).then_some(BRIDGE),
        far_end: (far != 0).then_some(far_end(index)),
        ..link(index)
    })
}

fn any_container(port: u32) -> impl Strategy<Value = Container> {
    let addresses = prop::collection::btree_set(any_address(), 0..3);
    let interface = (prop::option::of(any_mac()), any::<bool>(), addresses)
        .prop_map(|(mac, up, addresses)| Interface { mac, up, addresses });
    prop::option::of(interface).prop_map(move |interface| Container {
        far_end: far_end(port),
        interface,
    })
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let ports: Vec<u32> = (3..8).collect();
    let links: Vec<_> = ports.iter().map(|&port| any_link(port)).collect();
    let containers: Vec<_> = ports.iter().map(|&port| any_container(port)).collect();
    let neighbours = prop::collection::vec((any_address(), any_mac(), 0..5), 0..6);
    let entries = prop::collection::vec((3_u32..8, any_mac(), 0..5), 0..6);
    (links, containers, neighbours, entries).prop_map(|(links, containers, neighbours, entries)| {
        let mut observed = one_port();
        observed.links.remove(&PORT);
        observed
            .links
            .extend(links.into_iter().map(|it| (it.index, it)));
        observed.containers = (3..).zip(containers).collect();
        observed.neighbours = neighbours
            .into_iter()
            .map(|(address, mac, state)| Neighbour {
                state: if state == 0 {
                    NeighbourState::Unusable
                } else {
                    NeighbourState::Learnt
                },
                ..neighbour(address, mac)
            })
            .collect();
        observed.forwarding = entries
            .into_iter()
            .map(|(port, mac, permanent)| Forwarding {
                permanent: permanent == 0,
                ..forwarding(port, mac)
            })
            .collect();
        observed
    })
}

fn any_attached() -> impl Strategy<Value = BTreeMap<Ipv4Addr, AttachedEndpoint>> {
    let endpoint = (3_u32..9, prop::option::of(any_mac())).prop_map(|(link, mac)| {
        let interface = format!("link{link}");
        AttachedEndpoint {
            link,
            interface,
            mac,
        }
    });
    prop::collection::btree_map(any_address(), endpoint, 0..3)
}

/// Whether packets can be delivered behind a port, as the kernel has it.
fn delivers(observed: &Observed, port: u32) -> bool {
    observed.links.get(&port).is_some_and(|it| {
        it.kind == LinkKind::Veth && it.master == Some(BRIDGE) && it.far_end.is_some()
    })
}

/// The ports whose container holds an address.
fn holders(observed: &Observed, address: Ipv4Addr) -> Vec<EndpointPath> {
    let holder = |(&link, it): (&u32, &Container)| {
        let it = it.interface.as_ref()?;
        let held = it.addresses.contains(&address) && delivers(observed, link);
        let path = EndpointPath {
            link,
            mac: it.mac?,
            held: true,
        };
        held.then_some(path)
    };
    observed.containers.iter().filter_map(holder).collect()
}

proptest! {
    #[test]
    fn every_endpoint_is_an_address_of_a_container_behind_a_port_that_delivers(
        observed in any_observed(), attached in any_attached(),
    ) {
        for (address, path) in endpoints(&observed, BRIDGE, SUBNET, &attached) {
            prop_assert!(may_hold(SUBNET, address), "{address}");
            prop_assert!(delivers(&observed, path.link), "{path:?}");
            prop_assert!(is_own(&observed, &attached, &path), "{path:?}");
            if let Some(by_call) = attached.get(&address) {
                prop_assert_eq!(by_call.link, path.link);
                prop_assert!(by_call.mac.is_none_or(|mac| mac == path.mac));
                continue;
            }
            let holders = holders(&observed, address);
            if !holders.is_empty() {
                prop_assert!(holders.contains(&path), "{path:?} of {holders:?}");
                continue;
            }
            let spoke = observed.neighbours.iter().any(|it| {
                it.address == address && it.mac == Some(path.mac)
                    && it.state != NeighbourState::Unusable
            });
            let heard = observed.forwarding.iter().any(|it| {
                it.link == path.link && it.mac == path.mac && !it.permanent
            });
            prop_assert!(spoke && heard, "{address} at {path:?} out of nothing");
        }
    }

    #[test]
    fn nobody_takes_an_address_from_one_that_still_holds_it(
        before in any_observed(), mut after in any_observed(),
    ) {
        let mut before = before;
        look(&mut before);
        after.holders = before.holders.clone();
        look(&mut after);
        for (&address, &port) in &before.holders.addresses {
            let there = holders(&after, address);
            if there.iter().any(|path| path.link == port) {
                prop_assert_eq!(after.holders.addresses.get(&address), Some(&port));
                if let Some(path) = found(&after).get(&address).filter(|path| path.held) {
                    prop_assert_eq!(path.link, port);
                }
            }
        }
    }

    #[test]
    fn every_container_that_is_seen_is_an_endpoint(
        observed in any_observed(), attached in any_attached(),
    ) {
        let shown = endpoints(&observed, BRIDGE, SUBNET, &attached);
        for container in observed.containers.values() {
            for &address in container.interface.iter().flat_map(|it| &it.addresses) {
                let held = observed.holders.after(&observed, BRIDGE).addresses;
                let holder = holders(&observed, address)
                    .into_iter()
                    .find(|path| held.get(&address) == Some(&path.link))
                    .filter(|path| is_own(&observed, &attached, path));
                let seen = holder.is_some() && may_hold(SUBNET, address);
                if seen && !attached.contains_key(&address) {
                    prop_assert!(shown.contains_key(&address), "{address}");
                }
            }
        }
        for (&address, by_call) in &attached {
            if may_hold(SUBNET, address) && delivers(&observed, by_call.link)
                && let Some(mac) = by_call.mac
            {
                let expected = EndpointPath { link: by_call.link, mac, held: true };
                let expected = Some(&expected).filter(|path| is_own(&observed, &attached, path));
                prop_assert_eq!(shown.get(&address), expected);
            }
        }
    }
}
