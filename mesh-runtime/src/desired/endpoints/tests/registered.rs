//! What holds of registered containers, whatever they and others give their interfaces.

use proptest::prelude::*;

use super::{
    properties::{any_attached, any_mac, any_observed, has_veth},
    *,
};

const OTHER: u32 = 8;
const OTHER_MAC: Mac = [2, 0, 0, 0, 0, 10];
const FREE: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 10);

/// The container behind a port is registered with the address and the MAC address of these tests.
fn registered(port: u32) -> BTreeMap<Ipv4Addr, AttachedEndpoint> {
    let endpoint = AttachedEndpoint {
        link: port,
        interface: format!("link{port}"),
        mac: Some(MAC),
        strict: true,
    };
    [(ADDRESS, endpoint)].into()
}

/// Two ports, of which the containers have these MAC addresses and addresses.
fn two(one: (Mac, &[Ipv4Addr]), other: (Mac, &[Ipv4Addr])) -> Observed {
    let mut observed = one_port();
    observed.links.insert(OTHER, link(OTHER));
    for (port, (mac, addresses)) in [(PORT, one), (OTHER, other)] {
        let container = container(port, mac, addresses);
        observed.containers.insert(port, container);
    }
    observed
}

#[test]
fn a_registered_container_is_an_endpoint_before_anything_is_to_be_seen_of_it() {
    let mut unseen = one_port();
    let shown = |observed: &Observed| endpoints(observed, BRIDGE, SUBNET, &registered(PORT));
    assert_eq!(shown(&unseen), at(PORT, MAC));
    unseen.links.get_mut(&PORT).unwrap().up = false;
    assert_eq!(shown(&unseen), at(PORT, MAC));
    let mut inside = container(PORT, MAC, &[]);
    inside.interface.as_mut().unwrap().up = false;
    unseen.containers.insert(PORT, inside);
    assert_eq!(shown(&unseen), at(PORT, MAC));
}

/// Its first packet comes before anything can be learnt of the move.
#[test]
fn a_registered_container_is_an_endpoint_before_its_engine_has_moved_its_interface_there() {
    let mut unmoved = one_port();
    let port = unmoved.links.get_mut(&PORT).unwrap();
    (port.far_end, port.near_end) = (None, Some(OTHER));
    let shown = |observed: &Observed| endpoints(observed, BRIDGE, SUBNET, &registered(PORT));
    assert_eq!(shown(&unmoved), at(PORT, MAC));
    // Of one that is not registered nothing is known while nothing is to be seen of it.
    assert_eq!(found(&unmoved), BTreeMap::new());
    unmoved.links.get_mut(&PORT).unwrap().kind = LinkKind::Bridge;
    assert_eq!(shown(&unmoved), BTreeMap::new());
}

#[test]
fn what_a_registered_container_gives_its_interface_is_nothing_that_it_has() {
    let mut observed = two((OTHER_MAC, &[FREE]), ([2, 0, 0, 0, 0, 11], &[]));
    observed.neighbours = vec![neighbour(FREE, OTHER_MAC)];
    observed.forwarding = vec![forwarding(PORT, OTHER_MAC)];
    let attached = registered(PORT);
    observed.holders = observed.holders.after(&observed, BRIDGE, &attached);
    assert_eq!(observed.holders.addresses, BTreeMap::new());
    let shown = endpoints(&observed, BRIDGE, SUBNET, &attached);
    assert_eq!(shown, at(PORT, MAC));
    let shown = macs(&observed, BRIDGE, &attached);
    assert_eq!(shown, [(MAC, PORT), ([2, 0, 0, 0, 0, 11], OTHER)].into());
    // Somebody else who takes the address has it.
    let found = container(OTHER, [2, 0, 0, 0, 0, 11], &[FREE]);
    observed.containers.insert(OTHER, found);
    let holders = observed.holders.after(&observed, BRIDGE, &attached);
    assert_eq!(holders.addresses, [(FREE, OTHER)].into());
}

#[test]
fn what_is_registered_is_nobody_elses_also_of_one_who_had_it_first() {
    // Both the address and the MAC address are seen behind the other port.
    let mut observed = two((OTHER_MAC, &[]), (MAC, &[ADDRESS]));
    look(&mut observed);
    assert_eq!(found(&observed), at(OTHER, MAC));
    let attached = registered(PORT);
    let shown = endpoints(&observed, BRIDGE, SUBNET, &attached);
    assert_eq!(shown, at(PORT, MAC));
    let shown = macs(&observed, BRIDGE, &attached);
    assert_eq!(shown.get(&MAC), Some(&PORT));
    let told = contests(&observed, BRIDGE, SUBNET, &attached);
    let contest = Contest {
        address: ADDRESS,
        holder: "link7".to_owned(),
        by_call: true,
        others: vec!["link8".to_owned()],
    };
    assert_eq!(told, [contest]);
}

#[test]
fn a_call_for_another_gives_it_neither_the_address_nor_the_mac_of_a_registered_one() {
    let observed = two((MAC, &[ADDRESS]), (OTHER_MAC, &[]));
    for address in [Ipv4Addr::new(10, 42, 1, 2), FREE] {
        // Named before and after the registered one.
        let mut attached = registered(PORT);
        let thief = AttachedEndpoint {
            link: OTHER,
            interface: "link8".to_owned(),
            mac: Some(MAC),
            strict: false,
        };
        attached.insert(address, thief);
        let shown = macs(&observed, BRIDGE, &attached);
        assert_eq!(shown.get(&MAC), Some(&PORT));
        let shown = endpoints(&observed, BRIDGE, SUBNET, &attached);
        assert_eq!(shown, at(PORT, MAC));
    }
}

proptest! {
    #[test]
    fn at_a_strict_port_is_what_is_registered_of_it_and_nothing_else(
        observed in any_observed(), attached in any_attached(),
    ) {
        let strict = strict_ports(&attached);
        let is_registered = |address: &Ipv4Addr, link: u32, mac: Mac| {
            attached.get(address).is_some_and(|it| {
                it.strict && it.link == link && it.mac == Some(mac)
            })
        };
        for (address, path) in endpoints(&observed, BRIDGE, SUBNET, &attached) {
            if strict.contains(&path.link) {
                prop_assert!(is_registered(&address, path.link, path.mac), "{address} {path:?}");
            }
        }
        for (mac, port) in macs(&observed, BRIDGE, &attached) {
            let registered = attached.keys().any(|address| is_registered(address, port, mac));
            prop_assert!(!strict.contains(&port) || registered, "{mac:?} at {port}");
        }
    }

    #[test]
    fn a_registered_container_keeps_its_address_and_its_mac_whatever_others_do(
        observed in any_observed(), mut attached in any_attached(), before in any_observed(),
        port in 3_u32..8, mac in any_mac(),
    ) {
        let mut observed = observed;
        let mut before = before;
        look(&mut before);
        observed.holders = before.holders;
        // One MAC address is registered once.
        attached.retain(|_, it| !it.strict || it.mac != Some(mac));
        let endpoint = AttachedEndpoint {
            link: port,
            interface: format!("link{port}"),
            mac: Some(mac),
            strict: true,
        };
        attached.insert(ADDRESS, endpoint);
        let shown = macs(&observed, BRIDGE, &attached);
        prop_assert_eq!(shown.get(&mac), Some(&port));
        let shown = endpoints(&observed, BRIDGE, SUBNET, &attached);
        let path = EndpointPath { link: port, mac, held: true };
        let theirs = has_veth(&observed, port) && link(BRIDGE).mac != Some(mac);
        prop_assert_eq!(shown.get(&ADDRESS), Some(&path).filter(|_| theirs));
        // It is at no other port, and neither is its MAC address.
        prop_assert!(shown.values().all(|it| it.mac != mac || it.link == port));
    }
}
