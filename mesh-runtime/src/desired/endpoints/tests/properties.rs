//! What holds of any state: who is an endpoint, and who keeps an address.

use proptest::prelude::*;

use super::*;

pub(super) fn any_mac() -> impl Strategy<Value = Mac> {
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

pub(super) fn any_address() -> impl Strategy<Value = Ipv4Addr> {
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

pub(super) fn any_observed() -> impl Strategy<Value = Observed> {
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

pub(super) fn any_attached() -> impl Strategy<Value = BTreeMap<Ipv4Addr, AttachedEndpoint>> {
    let mac = prop::option::of(any_mac());
    let endpoint = (3_u32..9, mac, any::<bool>()).prop_map(|(link, mac, strict)| {
        let interface = format!("link{link}");
        AttachedEndpoint {
            link,
            interface,
            mac,
            strict,
        }
    });
    prop::collection::btree_map(any_address(), endpoint, 0..3)
}

/// Whether an interface is a veth device at the bridge.
pub(super) fn has_veth(observed: &Observed, port: u32) -> bool {
    let link = observed.links.get(&port);
    link.is_some_and(|it| it.kind == LinkKind::Veth && it.master == Some(BRIDGE))
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
            // The engine may still have to move the interface of a registered one.
            let registered = attached.get(&address).is_some_and(|it| it.strict);
            let behind = registered && has_veth(&observed, path.link);
            prop_assert!(behind || delivers(&observed, path.link), "{path:?}");
            prop_assert!(is_own(&observed, &attached, &path), "{path:?}");
            if let Some(by_call) = attached.get(&address) {
                prop_assert_eq!(by_call.link, path.link);
                prop_assert!(by_call.mac.is_none_or(|mac| mac == path.mac));
                continue;
            }
            let mut holders = holders(&observed, address);
            // What a registered container gives its interface besides is nothing that it has.
            holders.retain(|path| !strict_ports(&attached).contains(&path.link));
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
                let held = observed.holders.after(&observed, BRIDGE, &attached).addresses;
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
            let counts = by_call.strict || !strict_ports(&attached).contains(&by_call.link);
            let behind = match by_call.strict {
                true => has_veth(&observed, by_call.link),
                false => delivers(&observed, by_call.link),
            };
            if may_hold(SUBNET, address) && behind
                && let Some(mac) = by_call.mac.filter(|_| counts)
            {
                let expected = EndpointPath { link: by_call.link, mac, held: true };
                let expected = Some(&expected).filter(|path| is_own(&observed, &attached, path));
                prop_assert_eq!(shown.get(&address), expected);
            }
        }
    }
}
