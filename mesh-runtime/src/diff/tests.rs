mod states;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;
use mesh_layout::{bridge_mac, overlay_mac};
use proptest::prelude::*;
use states::{any_observed, any_wanted};

use super::{
    model::{ModelKernel, foreign},
    *,
};
use crate::{
    desired::desired,
    observed::{Address, Link, LinkKind, NextHop, NextHops, ROUTE_PROTOCOL, Route},
    options::RuntimeOptions,
    problem::Problem,
    settings::Device,
    wanted::{Wanted, adopt::adopt, node_settings::NodeSettings, peer::Peer},
};

const NIC: u32 = 2;
const BRIDGE: u32 = 3;
const OVERLAY: u32 = 4;
const OTHER: u32 = 5;
const HEADROOM: u32 = 6;
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn settings() -> Settings {
    Settings::from(&RuntimeOptions::default())
}

fn net(third: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24)
}

fn link(index: u32, name: &str, kind: LinkKind, mac: [u8; 6]) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        mac: Some(mac),
        mtu: 1500,
        up: true,
        master: None,
        far_end: None,
        filters_vlans: false,
        near_end: None,
        hairpin: false,
    }
}

/// A host before this project has touched it.
fn bare_host() -> Observed {
    Observed {
        links: [
            (1, link(1, "lo", LinkKind::Other(String::new()), [0; 6])),
            (
                NIC,
                link(
                    NIC,
                    "eth0",
                    LinkKind::Other(String::new()),
                    [2, 0, 0, 0, 0, 1],
                ),
            ),
        ]
        .into(),
        addresses: vec![Address {
            link: NIC,
            address: Ipv4Net::new_assert(HOST, 24),
            global: true,
        }],
        ..Observed::default()
    }
}

fn wanted(peers: &[u8], injected: &[u8]) -> Wanted {
    Wanted {
        subnet: Some(net(1)),
        host_address: Some(HOST),
        node_settings: NodeSettings::default(),
        generation: 1,
        peers: peers
            .iter()
            .map(|&third| {
                let peer = Peer {
                    address: Ipv4Addr::new(192, 0, 2, third),
                    hostname: String::new(),
                    suspect: false,
                    mtu: None,
                };
                (net(third), peer)
            })
            .collect::<BTreeMap<_, _>>()
            .into(),
        injected: Arc::new(injected.iter().map(|&third| net(third)).collect()),
        published: Default::default(),
        own_bridge: None,
        bridge_ports: Default::default(),
        endpoints: Default::default(),
    }
}

/// What the kernel is to show, and what makes it do so.
#[derive(Debug)]
struct Plan {
    desired: Desired,
    changes: Vec<Change>,
    problems: Vec<Problem>,
}

fn plan(settings: &Settings, wanted: &Wanted, observed: &Observed) -> Plan {
    let mut desired = desired(settings, wanted, observed, None);
    let changes = diff(settings, &desired, observed, &mut Settled::default());
    // What keeps entries from the kernel; that peers cannot be reached keeps none.
    let mut problems = std::mem::take(&mut desired.problems);
    problems.retain(|problem| !matches!(problem, Problem::NoRoute(_)));
    Plan {
        desired,
        changes,
        problems,
    }
}

/// Makes every change of a plan on a model kernel.
fn converge(settings: &Settings, wanted: &Wanted, observed: Observed) -> (Observed, Plan) {
    let planned = plan(settings, wanted, &observed);
    let mut kernel = ModelKernel {
        settings,
        state: observed,
    };
    for change in &planned.changes {
        if let Err(error) = kernel.apply(change) {
            panic!("{change}: {error}\nof {:#?}", planned.changes);
        }
    }
    (kernel.state, planned)
}

#[test]
fn nothing_is_done_before_the_node_has_a_subnet() {
    let mut observed = bare_host();
    Arc::make_mut(&mut observed.routes).add(own_route(9, OTHER, 0));
    let plan = plan(&settings(), &Wanted::default(), &observed);
    assert_eq!(plan.changes, []);
    assert_eq!(plan.desired, Desired::default());
}

#[test]
fn a_bare_host_gets_everything_in_one_round() {
    let settings = settings();
    let wanted = wanted(&[2, 3], &[9]);
    let (state, planned) = converge(&settings, &wanted, bare_host());
    assert_eq!(planned.problems, []);
    let overlay = state.link_named("vxlan100").unwrap();
    assert_eq!(overlay.mac, Some(overlay_mac([10, 42, 1, 0])));
    assert_eq!(overlay.mtu, 1450);
    assert_eq!(state.routes.iter().count(), 3);
    assert_eq!(state.overlay.neighbours.len(), 3);
    assert_eq!(state.overlay.forwarding.len(), 2);
    assert_eq!(plan(&settings, &wanted, &state).changes, []);
}

#[test]
fn other_settings_make_the_overlay_device_anew_and_are_taken_over_as_they_are() {
    let settings = settings();
    let mut wanted = wanted(&[2, 3], &[9]);
    let (state, _) = converge(&settings, &wanted, bare_host());
    for (vxlan_port, vni) in [(8472, 100), (8472, 7), (4789, 7), (4789, 100)] {
        wanted.node_settings = NodeSettings { vxlan_port, vni };
        let (state, planned) = converge(&settings, &wanted, state.clone());
        assert_eq!(planned.problems, []);
        let overlay = state.link_named("vxlan100").unwrap();
        let LinkKind::Vxlan(vxlan) = &overlay.kind else {
            panic!("{overlay:?}");
        };
        assert_eq!((vxlan.port, vxlan.vni), (vxlan_port, vni));
        assert_eq!(state.overlay.forwarding.len(), 2);
        assert_eq!(plan(&settings, &wanted, &state).changes, []);
        let adopted = adopt(&settings, &state);
        assert_eq!(adopted.node_settings, wanted.node_settings);
        assert_eq!(adopted.peers, wanted.peers);
    }
}

#[test]
fn what_was_set_up_is_taken_over_as_it_is() {
    let settings = settings();
    let wanted = wanted(&[2, 3], &[9]);
    let (state, _) = converge(&settings, &wanted, bare_host());
    let adopted = adopt(&settings, &state);
    assert_eq!(adopted.subnet, wanted.subnet);
    assert_eq!(adopted.host_address, wanted.host_address);
    assert_eq!(adopted.peers, wanted.peers);
    assert_eq!(adopted.injected, wanted.injected);
    assert_eq!(plan(&settings, &adopted, &state).changes, []);
}

#[test]
fn nothing_is_taken_over_from_a_bridge_that_somebody_else_made() {
    let settings = settings();
    let (mut state, _) = converge(&settings, &wanted(&[2], &[]), bare_host());
    for link in state.links.values_mut().filter(|it| it.name == "quilt0") {
        link.mac = Some([2, 0, 0, 0, 0, 5]);
    }
    assert_eq!(adopt(&settings, &state), Wanted::default());
}

#[test]
fn the_overlays_mtu_is_that_of_the_smallest_underlay_in_use() {
    let settings = settings();
    let mut observed = bare_host();
    let mut slow = link(OTHER, "eth1", LinkKind::Other(String::new()), [2; 6]);
    slow.mtu = 1400;
    observed.links.insert(OTHER, slow);
    let way = NextHop {
        address: Ipv4Addr::new(198, 51, 100, 1),
        link: OTHER,
        mtu: None,
    };
    let answers = [(Ipv4Addr::new(192, 0, 2, 2), Some(way))];
    observed.next_hops = Arc::new(NextHops::new(answers.into()));
    let with_peer = plan(&settings, &wanted(&[2], &[]), &observed);
    assert_eq!(with_peer.desired.underlay.unwrap().overlay_mtu, 1350);
    observed.next_hops = Arc::default();
    let without = plan(&settings, &wanted(&[], &[]), &observed);
    assert_eq!(without.desired.underlay.unwrap().overlay_mtu, 1450);
}

#[test]
fn a_bridge_whose_address_was_rewritten_is_still_ours() {
    let settings = settings();
    let mut wanted = wanted(&[], &[]);
    let (mut state, _) = converge(&settings, &wanted, bare_host());
    let index = state.link_named("quilt0").unwrap().index;
    if let Some(bridge) = state.links.get_mut(&index) {
        bridge.mac = Some([2, 0, 0, 0, 0, 5]);
    }
    assert_eq!(plan(&settings, &wanted, &state).changes, []);
    wanted.own_bridge = Some(index);
    assert_eq!(
        plan(&settings, &wanted, &state).changes,
        [Change::SetMac(Device::Bridge, bridge_mac([10, 42, 1, 0]))]
    );
}

#[test]
fn a_route_of_ours_that_works_stays_when_a_foreign_one_joins_it() {
    let settings = settings();
    let wanted = wanted(&[2], &[]);
    let (mut state, _) = converge(&settings, &wanted, bare_host());
    Arc::make_mut(&mut state.routes).add(Route {
        metric: 100,
        protocol: 4,
        link: Some(NIC),
        ..own_route(2, NIC, 0)
    });
    let plan = plan(&settings, &wanted, &state);
    assert_eq!(plan.changes, []);
    assert_eq!(plan.problems.len(), 1);
    assert!(plan.desired.entries.blocked.is_empty());
}

fn own_route(third: u8, link: u32, metric: u32) -> Route {
    Route {
        destination: net(third),
        gateway: None,
        link: Some(link),
        source: None,
        metric,
        protocol: ROUTE_PROTOCOL,
        onlink: false,
        unicast: true,
        mtu: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn from_any_state_one_round_converges_and_a_second_does_nothing(
        observed in any_observed(),
        wanted in any_wanted(),
    ) {
        let settings = settings();
        let (state, first) = converge(&settings, &wanted, observed);
        let second = plan(&settings, &wanted, &state);
        prop_assert_eq!(&second.changes, &[], "after {:#?}", first.changes);
        prop_assert!(second.problems.len() <= first.problems.len());
    }

    #[test]
    fn what_is_wanted_and_not_in_the_way_of_anybody_is_there_after_one_round(
        observed in any_observed(),
        wanted in any_wanted(),
    ) {
        let settings = settings();
        let (state, planned) = converge(&settings, &wanted, observed);
        // More than half of the states have nothing in the way.
        if !planned.problems.is_empty() {
            return Ok(());
        }
        let overlay = state.link_named("vxlan100").unwrap().index;
        for destination in wanted.destinations() {
            let routes: Vec<&Route> = state
                .routes
                .iter()
                .filter(|route| route.destination == destination)
                .collect();
            prop_assert_eq!(routes.len(), 1);
            prop_assert_eq!(routes[0].link, Some(overlay));
            prop_assert_eq!(routes[0].gateway, Some(destination.network()));
        }
        for (subnet, peer) in wanted.peers.iter() {
            let mac = overlay_mac(subnet.network().octets());
            let there = state
                .overlay
                .of(mac)
                .any(|entry| entry.link == overlay && entry.remote == Some(peer.address));
            prop_assert!(there, "{}", subnet);
        }
    }

    #[test]
    fn what_is_not_ours_is_never_touched(
        observed in any_observed(),
        wanted in any_wanted(),
    ) {
        let settings = settings();
        let before = foreign(&settings, &observed);
        let (state, _) = converge(&settings, &wanted, observed);
        prop_assert_eq!(foreign(&settings, &state), before);
    }

    #[test]
    fn a_node_that_was_set_up_is_taken_over_without_a_change(
        observed in any_observed(),
        wanted in any_wanted(),
    ) {
        let settings = settings();
        let (state, planned) = converge(&settings, &wanted, observed);
        // More than half of the states have nothing in the way.
        if !planned.problems.is_empty() {
            return Ok(());
        }
        let mut adopted = adopt(&settings, &state);
        // A bridge that was not ours is used, but nothing is taken over from it.
        if adopted.subnet.is_none() {
            return Ok(());
        }
        prop_assert_eq!(&adopted.peers, &wanted.peers);
        adopted.own_bridge = wanted.own_bridge;
        prop_assert_eq!(&plan(&settings, &adopted, &state).changes, &[]);
    }
}
