//! Flows of datagrams that a change of published ports leaves astray. Pure.
//!
//! The kernel asks the rules about the first datagram of a flow alone, and a flow lives as long as its
//! datagrams keep coming: a client that never stops would never find the container that has taken the place of
//! another. TCP's connections end by themselves, with their container.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_ipam::Protocol;

use super::{
    Ruleset,
    published::{Way, each},
};

/// A flow of UDP as the connection tracking knows it: from whom to whom the first datagram was, and the first
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::firewall) struct Flow {
    pub(in crate::firewall) client: (Ipv4Addr, u16),
    pub(in crate::firewall) asked: (Ipv4Addr, u16),
    pub(in crate::firewall) answers: (Ipv4Addr, u16),
    pub(in crate::firewall) answered: (Ipv4Addr, u16),
}

/// Which ways of datagrams have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::firewall) struct ChangedWays {
    gone: BTreeSet<Way>,
    new: BTreeSet<(Option<Ipv4Addr>, Way)>,
}

impl Ruleset {
    /// What has changed since `before`; everything is new where nothing is known of before.
    pub(in crate::firewall) fn changed_ways(&self, before: Option<&Self>) -> ChangedWays {
        let ways = |ruleset: &Self| {
            let all = each(&ruleset.sets.doors);
            let datagrams = all.filter(|(_, way)| way.protocol == Protocol::Udp);
            datagrams.collect::<BTreeSet<_>>()
        };
        let (old, new) = (before.map(ways).unwrap_or_default(), ways(self));
        ChangedWays {
            gone: old.difference(&new).map(|(_, way)| *way).collect(),
            new: new.difference(&old).copied().collect(),
        }
    }

    /// Whether a flow would go another way, were it new.
    pub(in crate::firewall) fn leaves_astray(&self, changed: &ChangedWays, flow: &Flow) -> bool {
        changed.leaves_astray(self.frame.subnet, flow)
    }
}

impl ChangedWays {
    /// Whether there are none.
    pub(in crate::firewall) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    fn leaves_astray(&self, subnet: Ipv4Net, flow: &Flow) -> bool {
        let target = |way: &Way| (way.container, way.container_port);
        let gone = self.gone.iter().any(|way| {
            way.host_port == flow.asked.1
                && target(way) == flow.answers
                && flow.answers != flow.asked
        });
        // The host's own port was asked, or another container's: what is forwarded or translated elsewhere has
        // nothing to do with ours.
        let untouched = flow.answers == flow.asked && flow.answered == flow.client;
        let of_ours = untouched || subnet.contains(&flow.answers.0);
        let new = self.new.iter().any(|(address, way)| {
            way.host_port == flow.asked.1
                && address.is_none_or(|address| address == flow.asked.0)
                && target(way) != flow.answers
        });
        gone || (of_ours && new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);
    const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 9), 40_000);
    const DOOR: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 2), 5300);

    fn way(last: u8) -> Way {
        Way {
            protocol: Protocol::Udp,
            host_port: 5300,
            container: Ipv4Addr::new(10, 42, 1, last),
            container_port: 53,
        }
    }

    fn flow(answers: (Ipv4Addr, u16)) -> Flow {
        Flow {
            client: CLIENT,
            asked: DOOR,
            answers,
            answered: CLIENT,
        }
    }

    fn moved() -> ChangedWays {
        ChangedWays {
            gone: [way(2)].into(),
            new: [(None, way(3))].into(),
        }
    }

    #[test]
    fn a_flow_to_the_container_that_was_there_before_is_astray_and_one_to_its_successor_is_not() {
        let to = |last| flow((Ipv4Addr::new(10, 42, 1, last), 53));
        assert!(moved().leaves_astray(SUBNET, &to(2)));
        assert!(!moved().leaves_astray(SUBNET, &to(3)));
        // Also where nothing is known of before.
        let new = ChangedWays {
            gone: BTreeSet::new(),
            ..moved()
        };
        assert!(new.leaves_astray(SUBNET, &to(2)));
    }

    #[test]
    fn a_flow_that_began_before_the_port_was_published_is_astray() {
        assert!(moved().leaves_astray(SUBNET, &flow(DOOR)));
    }

    #[test]
    fn what_others_translate_and_other_ports_are_left_alone() {
        let elsewhere = flow((Ipv4Addr::new(172, 17, 0, 2), 53));
        let masqueraded = Flow {
            answered: (Ipv4Addr::new(192, 0, 2, 2), 1024),
            ..flow(DOOR)
        };
        let another_port = Flow {
            asked: (DOOR.0, 5301),
            ..flow((DOOR.0, 5301))
        };
        for flow in [elsewhere, masqueraded, another_port] {
            assert!(!moved().leaves_astray(SUBNET, &flow), "{flow:?}");
        }
        let one_address = ChangedWays {
            gone: BTreeSet::new(),
            new: [(Some(Ipv4Addr::new(192, 0, 2, 88)), way(3))].into(),
        };
        assert!(!one_address.leaves_astray(SUBNET, &flow(DOOR)));
    }
}
