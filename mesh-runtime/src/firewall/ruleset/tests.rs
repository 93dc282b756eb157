use proptest::prelude::*;

use super::*;
use crate::kernel::{containers::FarEnd, observed::Link};

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
            routed_from: BTreeSet::new(),
            filters_vlans: false,
            without_programs: false,
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
    let of_inet = (addresses(), addresses(), names(), names());
    let strict = prop::collection::btree_set(port(), 0..6);
    (of_inet, ports, held, macs, strict).prop_map(
        |((peers, subnets, uplinks, bridges), ports, held, macs, strict)| Sets {
            peers,
            subnets,
            uplinks,
            bridges,
            ports,
            held,
            macs,
            strict,
        },
    )
}

/// The elements' keys by set, as the kernel holds them.
fn keys(ruleset: &Ruleset) -> BTreeMap<&'static str, BTreeSet<Vec<u8>>> {
    let keys = |set: &NamedSet| {
        (set.elements)(&ruleset.sets)
            .iter()
            .map(Element::key)
            .collect()
    };
    SETS.iter().map(|set| (set.name, keys(set))).collect()
}

proptest! {
    #[test]
    fn the_changes_make_the_shown_elements_the_wanted_ones(shown in sets(), wanted in sets()) {
        let (shown, wanted) = (ruleset(shown), ruleset(wanted));
        let mut kernel = keys(&shown);
        for change in wanted.since(&shown).unwrap() {
            let elements = kernel.get_mut(change.set).unwrap();
            for key in change.keys {
                // The kernel refuses to delete what is not there.
                let changed = match change.add {
                    true => elements.insert(key),
                    false => elements.remove(&key),
                };
                prop_assert!(changed, "{}", change.set);
            }
        }
        prop_assert_eq!(kernel, keys(&wanted));
        prop_assert!(wanted.since(&wanted).unwrap().is_empty());
    }

    #[test]
    fn every_element_is_in_the_text_and_counted(sets in sets()) {
        let rules = ruleset(sets.clone());
        let text = rules.text();
        for peer in &sets.peers {
            prop_assert!(text.contains(&peer.to_string()));
        }
        let content = rules.content();
        prop_assert_eq!(&content.elements, &keys(&rules));
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
    assert!(!rules.text().contains("snat"));
    rules.frame.routed_from = ["192.168.7.0/24".parse().unwrap()].into();
    let text = rules.text();
    assert!(text.contains("elements = { 192.168.7.0/24 }"), "{text}");
    assert!(text.contains("snat ip to 10.42.1.1"), "{text}");
}

#[test]
fn frames_of_a_vlan_are_judged_where_the_bridge_takes_tags_off() {
    let mut rules = ruleset(Sets::default());
    assert!(rules.text().contains("vlan id != 0 accept"));
    rules.frame.filters_vlans = true;
    assert!(!rules.text().contains("vlan id"), "{}", rules.text());
}

#[test]
fn without_programs_the_rules_drop_what_they_would_have_marked_for_them() {
    let mut rules = ruleset(Sets::default());
    let up = |rules: &Ruleset| rules.text().split("chain up").nth(1).unwrap().to_owned();
    let judged = |rules: &Ruleset| up(rules).contains("meta priority 514d:0 counter drop");
    assert!(!judged(&rules), "{}", up(&rules));
    rules.frame.without_programs = true;
    assert!(judged(&rules), "{}", up(&rules));
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
    };
    let bridges = container_bridges(&observed, &underlay, 2);
    assert_eq!(bridges, ["docker0".to_owned()].into());
}
