//! Kernel states and wanted states to start a plan from.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;
use mesh_layout::{VNI, bridge_mac, overlay_mac};
use proptest::prelude::*;

use super::{BRIDGE, HEADROOM, HOST, NIC, OTHER, OVERLAY, bare_host, link, net, wanted};
use crate::{
    headroom,
    observed::{
        Address, Forwarding, Link, LinkKind, Neighbour, NeighbourState, NextHop, NextHops,
        Observed, OverlayEntries, ROUTE_PROTOCOL, Route, Routes, Vxlan,
    },
    wanted::Wanted,
};

// Few values for each part, so that they meet: the same subnets, interfaces and addresses.

fn any_mac() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![
        (0..6_u8).prop_map(|third| overlay_mac([10, 42, third, 0])),
        (0..6_u8).prop_map(|third| bridge_mac([10, 42, third, 0])),
        Just([2, 0, 0, 0, 0, 7]),
    ]
}

fn any_underlay_address() -> impl Strategy<Value = Ipv4Addr> {
    (1..6_u8).prop_map(|host| Ipv4Addr::new(192, 0, 2, host))
}

fn any_link_of_host() -> impl Strategy<Value = u32> {
    prop_oneof![Just(NIC), Just(BRIDGE), Just(OVERLAY), Just(OTHER)]
}

fn any_bridge() -> impl Strategy<Value = Option<Link>> {
    let kind = prop_oneof![
        9 => Just(LinkKind::Bridge),
        1 => Just(LinkKind::Other("dummy".to_owned())),
    ];
    prop::option::of((kind, any_mac(), any::<bool>(), 1400..1502_u32).prop_map(
        |(kind, mac, up, mtu)| Link {
            up,
            mtu,
            ..link(BRIDGE, "quilt0", kind, mac)
        },
    ))
}

fn any_vxlan() -> impl Strategy<Value = Vxlan> {
    (
        prop_oneof![9 => Just(VNI), 1 => Just(7)],
        prop_oneof![5 => Just(4789_u16), 1 => Just(8472)],
        prop::option::of(any_underlay_address()),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.1, Just(NIC)),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(vni, port, local, learning, checksum, lower, external, default_remote)| Vxlan {
                vni,
                port,
                local,
                learning,
                checksum,
                lower,
                external,
                default_remote,
            },
        )
}

fn any_overlay() -> impl Strategy<Value = Option<Link>> {
    let kind = prop_oneof![
        9 => any_vxlan().prop_map(LinkKind::Vxlan),
        1 => Just(LinkKind::Bridge),
    ];
    prop::option::of((kind, any_mac(), any::<bool>(), 1400..1502_u32).prop_map(
        |(kind, mac, up, mtu)| Link {
            up,
            mtu,
            ..link(OVERLAY, "vxlan100", kind, mac)
        },
    ))
}

/// The device that asks for headroom, as somebody may have left it, or another of its name.
fn any_headroom() -> impl Strategy<Value = Option<Link>> {
    let vxlan = |vni| {
        LinkKind::Vxlan(Vxlan {
            vni,
            ..Vxlan::default()
        })
    };
    let kind = prop_oneof![
        9 => Just(vxlan(headroom::VNI)),
        1 => Just(LinkKind::Veth),
    ];
    let master = prop_oneof![
        3 => Just(Some(BRIDGE)),
        1 => Just(Some(OTHER)),
        1 => Just(None),
    ];
    prop::option::of((kind, any::<bool>(), 1400..1502_u32, master).prop_map(
        |(kind, up, mtu, master)| Link {
            up,
            mtu,
            master,
            ..link(HEADROOM, headroom::NAME, kind, headroom::MAC)
        },
    ))
}

/// Somebody else's device, now and then a VXLAN device with our VNI.
fn any_other() -> impl Strategy<Value = Option<Link>> {
    let kind = prop_oneof![
        Just(LinkKind::Bridge),
        Just(LinkKind::Veth),
        any_vxlan().prop_map(LinkKind::Vxlan),
    ];
    prop::option::of(kind.prop_map(|kind| link(OTHER, "other", kind, [2, 0, 0, 0, 0, 8])))
}

fn any_route() -> impl Strategy<Value = Route> {
    (
        0..6_u8,
        prop::option::weighted(0.7, (0..6_u8).prop_map(|third| net(third).network())),
        prop::option::weighted(0.9, any_link_of_host()),
        prop::option::of((0..6_u8).prop_map(|third| crate::wanted::subnet::gateway(net(third)))),
        prop_oneof![3 => Just(0_u32), 1 => Just(100)],
        prop_oneof![4 => Just(ROUTE_PROTOCOL), 1 => Just(2), 1 => Just(4)],
        any::<bool>(),
        prop_oneof![6 => Just(24_u8), 1 => Just(26), 1 => Just(16)],
    )
        .prop_map(
            |(third, gateway, link, source, metric, protocol, onlink, prefix)| Route {
                destination: Ipv4Net::new_assert(net(third).network(), prefix).trunc(),
                gateway,
                link,
                source,
                metric,
                protocol,
                onlink,
                unicast: link.is_some(),
                mtu: None,
            },
        )
}

fn any_neighbour() -> impl Strategy<Value = Neighbour> {
    (
        any_link_of_host(),
        (0..6_u8, 0..3_u8).prop_map(|(third, fourth)| Ipv4Addr::new(10, 42, third, fourth)),
        prop::option::of(any_mac()),
        prop_oneof![
            Just(NeighbourState::Permanent),
            Just(NeighbourState::Learnt),
            Just(NeighbourState::Unusable)
        ],
    )
        .prop_map(|(link, address, mac, state)| Neighbour {
            link,
            address,
            mac,
            state,
        })
}

fn any_forwarding() -> impl Strategy<Value = Forwarding> {
    (
        any_link_of_host(),
        any_mac(),
        prop::option::of(any_underlay_address()),
        prop::option::weighted(0.2, Just(BRIDGE)),
        any::<bool>(),
        prop_oneof![
            6 => Just((false, false)),
            1 => Just((true, false)),
            1 => Just((true, true)),
        ],
    )
        .prop_map(
            |(link, mac, remote, bridge, permanent, (pinned, sticky))| Forwarding {
                link,
                mac,
                remote,
                bridge,
                permanent,
                pinned,
                sticky,
            },
        )
}

fn any_address() -> impl Strategy<Value = Address> {
    (
        prop_oneof![3 => Just(BRIDGE), 1 => Just(OTHER)],
        0..6_u8,
        0..3_u8,
        prop_oneof![4 => Just(24_u8), 1 => Just(16)],
    )
        .prop_map(|(link, third, fourth, prefix)| Address {
            link,
            address: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, fourth), prefix),
            global: true,
        })
}

prop_compose! {
    pub(super) fn any_observed()(
        devices in (any_bridge(), any_overlay(), any_headroom(), any_other()),
        here in prop::bool::weighted(0.9),
        addresses in prop::collection::vec(any_address(), 0..4),
        routes in prop::collection::vec(any_route(), 0..10),
        neighbours in prop::collection::vec(any_neighbour(), 0..10),
        forwarding in prop::collection::vec(any_forwarding(), 0..10),
        ways in prop::collection::btree_map(
            any_underlay_address(), prop_oneof![Just(NIC), Just(OTHER), Just(OVERLAY)], 0..4),
        ip_forward in any::<bool>(),
    ) -> Observed {
        let mut observed = bare_host();
        let (bridge, overlay, headroom, other) = devices;
        for link in [bridge, overlay, headroom, other].into_iter().flatten() {
            observed.links.insert(link.index, link);
        }
        if !here {
            observed.addresses.clear();
        }
        observed.addresses.extend(addresses);
        observed.ip_forward = ip_forward;
        as_a_kernel_would(&mut observed, routes, neighbours, forwarding);
        let ways = ways.into_iter().filter(|(_, link)| observed.links.contains_key(link));
        let answers = ways.map(|(address, link)| (address, Some(NextHop { address, link, mtu: None })));
        observed.next_hops = Arc::new(NextHops::new(answers.collect()));
        observed
    }
}

/// Adds entries, but for what no kernel can show: those of devices that are not there, and doubles.
fn as_a_kernel_would(
    observed: &mut Observed,
    routes: Vec<Route>,
    mut neighbours: Vec<Neighbour>,
    mut forwarding: Vec<Forwarding>,
) {
    let links: BTreeSet<u32> = observed.links.keys().copied().collect();
    let index = |name| observed.link_named(name).map(|link| link.index);
    let (bridge, overlay) = (index("quilt0"), index("vxlan100"));
    let mut seen = BTreeSet::new();
    observed
        .addresses
        .retain(|it| links.contains(&it.link) && seen.insert((it.link, it.address)));
    let routes = routes.into_iter();
    observed.routes = routes
        .filter(|it| it.link.is_none_or(|link| links.contains(&link)))
        .collect::<Routes>()
        .into();
    let mut seen = BTreeSet::new();
    neighbours.retain(|it| seen.insert((it.link, it.address)));
    let mut seen = BTreeSet::new();
    forwarding.retain(|it| links.contains(&it.link) && seen.insert((it.link, it.mac)));
    let of = |link: Option<u32>| move |it: &&Neighbour| Some(it.link) == link;
    observed.neighbours = neighbours.iter().filter(of(bridge)).copied().collect();
    let of_device = |it: &&Forwarding| Some(it.link) == overlay && it.bridge.is_none();
    observed.overlay = Arc::new(OverlayEntries::new(
        neighbours.iter().filter(of(overlay)).copied().collect(),
        forwarding.iter().filter(of_device).copied().collect(),
    ));
    forwarding.retain(|it| it.bridge.is_some() && it.bridge == bridge);
    observed.forwarding = forwarding;
}

prop_compose! {
    pub(super) fn any_wanted()(
        peers in prop::collection::btree_set(2..6_u8, 0..4),
        injected in prop::collection::btree_set(2..6_u8, 0..3),
        told in any::<bool>(),
        own in prop::option::of(Just(BRIDGE)),
    ) -> Wanted {
        let peers: Vec<u8> = peers.into_iter().collect();
        let injected: Vec<u8> = injected.into_iter().collect();
        Wanted {
            host_address: told.then_some(HOST),
            own_bridge: own,
            ..wanted(&peers, &injected)
        }
    }
}
