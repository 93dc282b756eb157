//! Ports whose packets no program of ours looks at when they arrive. Pure.
//!
//! Where programs are links (since Linux 6.6), the kernel keeps whoever sets up a container's interface waiting while it
//! attaches one. So a registered port that is new is left free until that is done.
//!
//! Where they are filters, others may be refused. A filter stands in a queueing discipline, `clsact` or `ingress`, of
//! which an interface takes one. Whoever makes an `ingress` one for a container that just came, as the CNI plugin
//! `bandwidth` does, would be refused behind ours, and the container would not start. So a new port is left free for a
//! while, and only then ours is made, unless there is another by then, which carries our filter as well.
//!
//! Until then the packet filter guards the port, and the bridge's own program carries its packets.

use std::collections::BTreeSet;

use crate::observed::Observed;

/// Ports of a bridge that are without a program of ours for now: they are new, and where that would keep ours from being
/// made, nobody has made a queueing discipline there yet.
pub(crate) fn left_free(observed: &Observed, bridge: u32) -> BTreeSet<u32> {
    let is_occupied = |port: &u32| observed.by_filters && observed.shaping.occupied.contains(port);
    let is_free = |port: &u32| observed.new_ports.contains(port) && !is_occupied(port);
    ports(observed, bridge).filter(is_free).collect()
}

/// Ports of a bridge whose packets the packet filter has to judge as if they had no program: those that are left free,
/// until their program stands, and those where a filter of somebody else's may end a packet's way before ours sees it, as one that hands it on
/// to another device does. (A tcx link comes before every filter.)
pub(crate) fn bare(observed: &Observed, bridge: u32) -> BTreeSet<u32> {
    let mut bare = left_free(observed, bridge);
    let comes_late = |port: &u32| observed.by_filters && observed.shaping.filtered.contains(port);
    let is_bare = |port: &u32| comes_late(port) || observed.awaiting_programs.contains(port);
    bare.extend(ports(observed, bridge).filter(is_bare));
    bare
}

fn ports(observed: &Observed, bridge: u32) -> impl Iterator<Item = u32> {
    observed.ports_of(bridge).map(|port| port.index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observed::{Link, LinkKind, shaping::Shaping};

    const BRIDGE: u32 = 1;

    fn port(index: u32, master: u32) -> (u32, Link) {
        let link = Link {
            index,
            name: format!("veth{index}"),
            kind: LinkKind::Veth,
            mac: None,
            mtu: 1450,
            up: true,
            master: Some(master),
            far_end: None,
            filters_vlans: false,
            near_end: None,
            hairpin: false,
        };
        (index, link)
    }

    fn some() -> impl Strategy<Value = BTreeSet<u32>> {
        prop::collection::btree_set(10_u32..20, 0..8)
    }

    fn host() -> impl Strategy<Value = Observed> {
        let ports = prop::collection::btree_map(10_u32..20, 1_u32..3, 0..8);
        (any::<bool>(), ports, some(), some(), some(), some()).prop_map(
            |(by_filters, ports, new_ports, occupied, filtered, awaiting_programs)| Observed {
                awaiting_programs,
                links: ports.into_iter().map(|(it, on)| port(it, on)).collect(),
                by_filters,
                new_ports,
                shaping: Shaping {
                    // A filter stands in a queueing discipline.
                    occupied: &occupied | &filtered,
                    filtered,
                    shaped: BTreeSet::new(),
                },
                ..Observed::default()
            },
        )
    }

    #[test]
    fn a_new_port_is_left_free_and_where_programs_are_filters_until_somebody_is_there() {
        let mut observed = Observed {
            links: [port(10, BRIDGE), port(11, BRIDGE)].into(),
            new_ports: [10].into(),
            by_filters: true,
            ..Observed::default()
        };
        assert_eq!(left_free(&observed, BRIDGE), [10].into());
        assert_eq!(bare(&observed, BRIDGE), [10].into());
        observed.shaping.occupied = [10].into();
        assert_eq!(left_free(&observed, BRIDGE), [].into());
        assert_eq!(bare(&observed, BRIDGE), [].into(), "it has our filter");
        observed.shaping.filtered = [10].into();
        assert_eq!(bare(&observed, BRIDGE), [10].into(), "behind another's");
        observed.shaping.filtered = [].into();
        observed.new_ports = [].into();
        observed.awaiting_programs = [10].into();
        assert_eq!(bare(&observed, BRIDGE), [10].into(), "until ours stands");

        // A link comes before every filter, whoever is there.
        observed.by_filters = false;
        observed.shaping.filtered = [10].into();
        assert_eq!(bare(&observed, BRIDGE), [10].into(), "until ours stands");
        observed.awaiting_programs = [].into();
        assert_eq!(bare(&observed, BRIDGE), [].into());
        observed.new_ports = [11].into();
        observed.shaping.occupied = [11].into();
        assert_eq!(left_free(&observed, BRIDGE), [11].into());
        assert_eq!(bare(&observed, BRIDGE), [11].into());
    }

    proptest! {
        #[test]
        fn every_port_has_a_program_or_is_judged_by_the_packet_filter(observed in host()) {
            let (free, bare) = (left_free(&observed, BRIDGE), bare(&observed, BRIDGE));
            let all: BTreeSet<u32> = ports(&observed, BRIDGE).collect();
            prop_assert!(free.is_subset(&bare) && bare.is_subset(&all));
            let awaiting = &all & &observed.awaiting_programs;
            prop_assert!(awaiting.is_subset(&bare));
            // What has been there for a while does not wait for its program, nor what is occupied by a filter's place.
            let mut waits = &all & &observed.new_ports;
            waits.retain(|port| !(observed.by_filters && observed.shaping.occupied.contains(port)));
            prop_assert_eq!(&free, &waits);
            let filtered = match observed.by_filters {
                true => &all & &observed.shaping.filtered,
                false => BTreeSet::new(),
            };
            prop_assert_eq!(bare, &(&free | &awaiting) | &filtered);
        }
    }
}
