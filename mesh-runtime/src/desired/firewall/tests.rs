use proptest::prelude::*;

use mesh_ipam::{Protocol, Published};
use mesh_layout::VXLAN_PORT;

use super::*;
use crate::{
    observed::{Link, containers::FarEnd},
    options::RuntimeOptions,
};

const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);

fn ruleset(sets: Sets) -> Ruleset {
    Ruleset {
        frame: Frame {
            bridge: "quilt0".to_owned(),
            overlay: "vxlan100".to_owned(),
            cluster: "10.42.0.0/16".parse().unwrap(),
            subnet: SUBNET,
            bridge_mac: [2, 0x52, 10, 42, 1, 0],
            host_address: Some(Ipv4Addr::new(192, 0, 2, 2)),
            settings: NodeSettings::default(),
            routed_from: BTreeSet::new(),
            masquerade: true,
            filters_vlans: false,
            routes_loopback: true,
            guards_alone: false,
        },
        sets,
    }
}

fn sets() -> impl Strategy<Value = Sets> {
    let address = || (0_u8..12).prop_map(|last| Ipv4Addr::new(192, 0, 2, last));
    let addresses = || prop::collection::btree_set(address(), 0..8);
    let names = || prop::collection::btree_set("veth[0-9]", 0..6);
    let port = || 2_u32..9;
    let ports = prop::collection::btree_set(port(), 0..6);
    let held = prop::collection::btree_map(address(), port(), 0..6);
    let mac = (0_u8..9).prop_map(|last| [2, 0, 0, 0, 0, last]);
    let macs = prop::collection::btree_map(mac, port(), 0..6);
    let of_inet = (addresses(), addresses(), names(), names(), published());
    let some_ports = || prop::collection::btree_set(port(), 0..6);
    let of_ports = (ports, some_ports(), some_ports());
    let marks = Just(BTreeSet::from([PRIORITY_ANOTHERS_CLAIM]));
    let refused = prop_oneof![Just(BTreeSet::new()), marks];
    (of_inet, of_ports, held, macs, refused).prop_map(
        |(
            (peers, subnets, uplinks, bridges, published),
            (ports, strict, bare),
            held,
            macs,
            refused,
        )| Sets {
            doors: doors(&published, SUBNET, VXLAN_PORT),
            peers: Arc::new(peers),
            subnets: Arc::new(subnets),
            uplinks,
            guests: bridges.clone(),
            bridges,
            ports,
            held,
            macs,
            strict,
            bare,
            refused,
        },
    )
}

fn published() -> impl Strategy<Value = BTreeSet<(Ipv4Addr, Published)>> {
    let container = (2_u8..6).prop_map(|last| Ipv4Addr::new(10, 42, 1, last));
    let address = prop::option::of((0_u8..3).prop_map(|last| Ipv4Addr::new(192, 0, 2, last)));
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let range = (address, protocol, 4785_u16..4795, 78_u16..82, 1_u16..6).prop_map(
        |(host_address, protocol, host_port, container_port, count)| Published {
            protocol,
            host_address,
            host_port,
            container_port,
            count,
        },
    );
    prop::collection::btree_set((container, range), 0..6)
}

/// The elements by set, as the kernel holds them: what each leads to by what it is found by.
fn held(ruleset: &Ruleset) -> BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>> {
    let held = |set: &NamedSet| {
        let elements = (set.elements)(&ruleset.sets);
        let raw = elements.iter().map(Element::raw);
        raw.map(|raw| (raw.key, raw.data)).collect()
    };
    SETS.iter().map(|set| (set.name, held(set))).collect()
}

proptest! {
    #[test]
    fn the_changes_make_the_shown_elements_the_wanted_ones(shown in sets(), wanted in sets()) {
        let (shown, wanted) = (ruleset(shown), ruleset(wanted));
        let mut kernel = held(&shown);
        for change in wanted.since(&shown).unwrap() {
            let elements = kernel.get_mut(change.set).unwrap();
            for element in change.elements {
                // The kernel refuses to delete what is not there, and to add what is there with
                // other data.
                let changed = match change.add {
                    true => elements.insert(element.key, element.data).is_none(),
                    false => elements.remove(&element.key).is_some(),
                };
                prop_assert!(changed, "{}", change.set);
            }
        }
        prop_assert_eq!(kernel, held(&wanted));
        prop_assert!(wanted.since(&wanted).unwrap().is_empty());
    }

    #[test]
    fn every_element_is_in_the_text_and_counted(sets in sets()) {
        let rules = ruleset(sets.clone());
        let text = rules.text();
        for peer in sets.peers.iter() {
            prop_assert!(text.contains(&peer.to_string()));
        }
        let content = rules.content();
        for (set, elements) in held(&rules) {
            // No two elements are found by the same.
            prop_assert_eq!(content.elements[set].len(), elements.len());
            let whole = elements.into_iter().map(|(key, data)| Raw { key, data }.whole());
            prop_assert_eq!(&content.elements[set], &whole.collect());
        }
        // The rules are the same whatever the sets hold.
        prop_assert_eq!(content.rules, ruleset(Sets::default()).content().rules);
    }
}

#[test]
fn other_rules_are_written_whole() {
    let shown = ruleset(Sets::default());
    let mut wanted = shown.clone();
    wanted.frame.host_address = None;
    assert!(wanted.since(&shown).is_none());
}

#[test]
fn a_network_that_is_let_in_is_sent_on_under_the_gateways_address() {
    let mut rules = ruleset(Sets::default());
    assert!(!rules.text().contains("chain routed_on"));
    rules.frame.routed_from = ["192.168.7.0/24".parse().unwrap()].into();
    let text = rules.text();
    assert!(text.contains("elements = { 192.168.7.0/24 }"), "{text}");
    assert!(text.contains("snat ip to 10.42.1.1"), "{text}");
}

fn range(host_address: Option<&str>, protocol: Protocol, first: u16, count: u16) -> Published {
    Published {
        protocol,
        host_address: host_address.map(|address| address.parse().unwrap()),
        host_port: first,
        container_port: 80,
        count,
    }
}

fn with(published: &[(Ipv4Addr, Published)]) -> String {
    let published = published.iter().cloned().collect();
    let doors = doors(&published, SUBNET, VXLAN_PORT);
    ruleset(Sets {
        doors,
        ..Sets::default()
    })
    .text()
}

#[test]
fn a_published_range_is_an_element_a_port_with_the_offset_kept() {
    let container = Ipv4Addr::new(10, 42, 1, 2);
    let text = with(&[
        (container, range(None, Protocol::Tcp, 8000, 2)),
        (container, range(Some("192.0.2.2"), Protocol::Udp, 53, 1)),
    ]);
    for line in [
        "{ tcp . 8000 : 10.42.1.2 . 80, tcp . 8001 : 10.42.1.2 . 81 }",
        "{ 192.0.2.2 . udp . 53 : 10.42.1.2 . 80 }",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn the_bridge_routes_loopback_where_it_is_ours_and_a_port_is_led_to_by_it() {
    let container = Ipv4Addr::new(10, 42, 1, 2);
    let rules = |host_address| {
        let published = [(container, range(host_address, Protocol::Tcp, 8000, 1))].into();
        ruleset(Sets {
            doors: doors(&published, SUBNET, VXLAN_PORT),
            ..Sets::default()
        })
    };
    let alone = rules(None).guards_alone();
    for (rules, routes) in [
        (ruleset(Sets::default()), false),
        (rules(None), true),
        (rules(Some("127.0.0.1")), true),
        (rules(Some("192.0.2.2")), false),
        (alone, false),
    ] {
        assert_eq!(
            rules.routes_loopback().is_some(),
            routes,
            "{}",
            rules.text()
        );
    }
    // Where nothing comes out of it, nothing is led away from loopback.
    let mut anothers = rules(None);
    let left_alone = |rules: &Ruleset| {
        let text = rules.text();
        let chain = text.split("chain in_from_this_host").nth(1);
        chain.unwrap().lines().nth(2) == Some("\t\tip daddr 127.0.0.0/8 return")
    };
    assert!(!left_alone(&anothers));
    anothers.frame.routes_loopback = false;
    assert!(left_alone(&anothers));
    assert_eq!(anothers.routes_loopback(), None);
}

#[test]
fn the_overlays_port_and_what_is_no_container_of_this_node_are_not_published() {
    let text = with(&[
        (
            Ipv4Addr::new(10, 42, 1, 2),
            range(None, Protocol::Udp, VXLAN_PORT, 1),
        ),
        (
            Ipv4Addr::new(10, 42, 2, 2),
            range(None, Protocol::Tcp, 80, 1),
        ),
    ]);
    assert!(!text.contains("elements"), "{text}");
}

#[test]
fn of_two_containers_that_want_one_port_the_lower_address_has_it() {
    let port = range(None, Protocol::Tcp, 8080, 1);
    let text = with(&[
        (Ipv4Addr::new(10, 42, 1, 9), port.clone()),
        (Ipv4Addr::new(10, 42, 1, 3), port),
    ]);
    assert!(text.contains("{ tcp . 8080 : 10.42.1.3 . 80 }"), "{text}");
}

#[test]
fn without_masquerading_there_is_no_rule_of_the_way_out() {
    let mut rules = ruleset(Sets::default());
    assert!(rules.text().contains("masquerade fully-random"));
    rules.frame.masquerade = false;
    let text = rules.text();
    assert!(!text.contains("masquerade fully-random"), "{text}");
    assert!(!text.contains("chain untranslatable"), "{text}");
}

#[test]
fn frames_of_a_vlan_are_judged_where_the_bridge_takes_tags_off() {
    let mut rules = ruleset(Sets::default());
    assert!(rules.text().contains("vlan id != 0 accept"));
    rules.frame.filters_vlans = true;
    assert!(!rules.text().contains("vlan id"), "{}", rules.text());
}

#[test]
fn the_rules_drop_what_they_mark_until_a_program_is_known_to_judge_it() {
    let mut observed = Observed {
        links: [link(2, "quilt0", LinkKind::Bridge, None)].into(),
        ..Observed::default()
    };
    let rules = |observed: &Observed| {
        let wanted = Wanted {
            subnet: Some(SUBNET),
            ..Wanted::default()
        };
        let settings = Settings::from(&RuntimeOptions::default());
        Ruleset::new(&settings, &wanted, observed, &Desired::default()).unwrap()
    };
    let before = rules(&observed);
    let text = before.text();
    let refused = "set refused { type classid; elements = { 514d:0 }; }";
    assert!(text.contains(refused), "{text}");
    let up = text.split("chain up").nth(1).unwrap();
    let (claims, drop) = (up.find("jump claims"), up.find("@refused counter drop"));
    assert!(claims.is_some() && claims < drop, "{up}");
    observed.bridge_has_program = true;
    // For which no table is written anew.
    let changes = rules(&observed).since(&before).unwrap();
    let changes: Vec<_> = changes
        .into_iter()
        .map(|it| (it.set, it.add, it.elements))
        .collect();
    let claim = Element::Mark(PRIORITY_ANOTHERS_CLAIM).raw();
    assert_eq!(changes, [("refused", false, vec![claim])]);
}

#[test]
fn what_a_registered_container_may_not_send_is_dropped_before_the_bridge_learns_from_it() {
    for filters_vlans in [false, true] {
        let mut rules = ruleset(Sets::default());
        rules.frame.filters_vlans = filters_vlans;
        let text = rules.text();
        let bridge = text.rsplit("table bridge").next().unwrap();
        // Of the bridge's own hooks in this order, and of frames that enter the host by the port itself.
        for chain in ["early", "up"] {
            let chain = bridge.split(&format!("chain {chain} ")).nth(1).unwrap();
            let first = chain.lines().nth(2).unwrap();
            assert_eq!(first.trim(), "iif @strict jump strict_port");
        }
        let rules = bridge.split("chain strict_port ").nth(1).unwrap();
        let rules: Vec<&str> = rules
            .lines()
            .skip(1)
            .take_while(|it| !it.contains('}'))
            .collect();
        // Of the MAC address in any VLAN.
        assert!(rules[0].contains("ether saddr != @mac_holders counter drop"));
        let of_vlan = rules
            .iter()
            .any(|rule| rule.contains("vlan id != 0 return"));
        assert_eq!(of_vlan, !filters_vlans, "{rules:?}");
    }
}

#[test]
fn a_name_that_would_mean_something_between_quotation_marks_is_in_no_set() {
    for name in ["veth0", "br-1a2b", "eth0.5", "vm_1:0"] {
        assert!(is_plain(name), "{name}");
    }
    for name in ["a\" }; flush ruleset; #", "eth*", "a\\", "ä"] {
        assert!(!is_plain(name), "{name}");
    }
}

fn link(index: u32, name: &str, kind: LinkKind, master: Option<u32>) -> (u32, Link) {
    let far_end = (kind == LinkKind::Veth).then_some(FarEnd {
        namespace: 1,
        link: 2,
    });
    let link = Link {
        index,
        name: name.to_owned(),
        kind,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
        master,
        far_end,
        filters_vlans: false,
        near_end: None,
        hairpin: false,
    };
    (index, link)
}

#[test]
fn another_bridge_with_containers_is_one_but_for_one_that_carries_the_underlay() {
    let observed = Observed {
        links: [
            link(2, "quilt0", LinkKind::Bridge, None),
            link(3, "docker0", LinkKind::Bridge, None),
            link(4, "br0", LinkKind::Bridge, None),
            link(5, "virbr0", LinkKind::Bridge, None),
            link(6, "veth6", LinkKind::Veth, Some(2)),
            link(7, "veth7", LinkKind::Veth, Some(3)),
            link(8, "veth8", LinkKind::Veth, Some(4)),
            link(9, "veth9", LinkKind::Veth, None),
        ]
        .into(),
        ..Observed::default()
    };
    let underlay = Underlay {
        address: Ipv4Addr::new(192, 0, 2, 2),
        interface: "br0".to_owned(),
        links: [(4, "br0".to_owned())].into(),
        overlay_mtu: 1450,
        narrowest: String::new(),
    };
    let bridges = container_bridges(&observed, &underlay, 2);
    assert_eq!(bridges, ["docker0".to_owned()].into());
}

#[test]
fn a_kernel_that_cannot_translate_addresses_has_the_guards_alone() {
    proptest!(|(sets in sets())| {
        let rules = ruleset(sets);
        let alone = rules.clone().guards_alone().text();
        for word in [" nat ", "masquerade", "untranslatable", "dnat ip to", "counter name", "\n\tcounter "] {
            prop_assert!(rules.text().contains(word), "{word}");
            prop_assert!(!alone.contains(word), "{word} in {alone}");
        }
        for guard in ["chain vxlan_in", "chain from_containers", "chain routed", "chain claims"] {
            prop_assert!(alone.contains(guard), "{guard}");
        }
    });
}
