//! Flows of datagrams that a change of published ports leaves astray. Pure.
//!
//! The kernel asks the rules about the first datagram of a flow alone, and a flow lives as long as its
//! datagrams keep coming: a client that never stops would never find the container that has taken the place of
//! another. TCP's connections end by themselves, with their container.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_ipam::{Protocol, is_of_all};

use super::{
    Ruleset,
    published::{Doors, Publication, each},
};

/// A flow of UDP as the connection tracking knows it: from whom to whom the first datagram was, and the first
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) client: (Ipv4Addr, u16),
    pub(crate) asked: (Ipv4Addr, u16),
    pub(crate) answers: (Ipv4Addr, u16),
    pub(crate) answered: (Ipv4Addr, u16),
}

/// Which ways of datagrams have changed, each with the address of the host that it begins at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangedPublications {
    gone: BTreeSet<(Option<Ipv4Addr>, Publication)>,
    new: BTreeSet<(Option<Ipv4Addr>, Publication)>,
}

impl Ruleset {
    /// What has changed since `before`; everything is new where nothing is known of before.
    pub(crate) fn changed_publications(&self, before: Option<&Self>) -> ChangedPublications {
        let ways = |ruleset: &Self| {
            let all = each(&ruleset.sets.doors);
            let datagrams = all.filter(|(_, way)| way.protocol == Protocol::Udp);
            datagrams.collect::<BTreeSet<_>>()
        };
        let (old, new) = (before.map(ways).unwrap_or_default(), ways(self));
        ChangedPublications {
            gone: old.difference(&new).copied().collect(),
            new: new.difference(&old).copied().collect(),
        }
    }

    /// Whether a flow would go another way, were it new. `is_local` is asked whether an address is one of this
    /// host's.
    pub(crate) fn leaves_astray(
        &self,
        changed: &ChangedPublications,
        flow: &Flow,
        is_local: impl FnOnce(Ipv4Addr) -> bool,
    ) -> bool {
        let now = leads(&self.sets.doors, flow, self.frame.routes_loopback);
        changed.leaves_astray(now, self.frame.subnet, flow, is_local)
    }
}

/// Where a flow to an address of this host is led: by the port of that address before that of all.
fn leads(doors: &Doors, flow: &Flow, routes_loopback: bool) -> Option<(Ipv4Addr, u16)> {
    let (address, port) = flow.asked;
    if !routes_loopback && (address.is_loopback() || flow.client.0.is_loopback()) {
        return None;
    }
    let door = |address| doors.get(&(address, Protocol::Udp, port)).copied();
    let of_all = || is_of_all(address).then(|| door(None)).flatten();
    door(Some(address)).or_else(of_all)
}

impl ChangedPublications {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    /// `now` is where the flow would be led, if what it asked is an address of this host.
    fn leaves_astray(
        &self,
        now: Option<(Ipv4Addr, u16)>,
        subnet: Ipv4Net,
        flow: &Flow,
        is_local: impl FnOnce(Ipv4Addr) -> bool,
    ) -> bool {
        if now == Some(flow.answers) {
            return false;
        }
        let begins_there = |(address, way): &(Option<Ipv4Addr>, Publication)| {
            way.host_port == flow.asked.1 && address.is_none_or(|it| it == flow.asked.0)
        };
        let translated = flow.answers != flow.asked;
        let mut gone = self.gone.iter().filter(|it| begins_there(it));
        if gone.any(|(_, way)| translated && (way.container, way.container_port) == flow.answers) {
            return true;
        }
        // The host's own port was asked, or another container's: what is forwarded or translated elsewhere has
        // nothing to do with ours.
        let untouched = !translated && flow.answered == flow.client;
        let of_ours = untouched || subnet.contains(&flow.answers.0);
        let new = now.is_some() && self.new.iter().any(begins_there);
        new && of_ours && is_local(flow.asked.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);
    const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 9), 40_000);
    const DOOR: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 2), 5300);

    fn way(last: u8) -> Publication {
        Publication {
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

    fn moved() -> ChangedPublications {
        ChangedPublications {
            gone: [(None, way(2))].into(),
            new: [(None, way(3))].into(),
        }
    }

    /// Whether a flow is astray on a host with the address of [`DOOR`], once the port leads to the third container.
    fn is_astray(changed: &ChangedPublications, flow: &Flow) -> bool {
        is_astray_where(changed, flow, true)
    }

    fn is_astray_where(changed: &ChangedPublications, flow: &Flow, routes_loopback: bool) -> bool {
        let doors = changed.new.iter().map(|(address, way)| {
            let door = (*address, way.protocol, way.host_port);
            (door, (way.container, way.container_port))
        });
        let now = leads(&doors.collect(), flow, routes_loopback);
        let is_local = |address: Ipv4Addr| address == DOOR.0 || address.is_loopback();
        changed.leaves_astray(now, SUBNET, flow, is_local)
    }

    #[test]
    fn a_flow_to_the_container_that_was_there_before_is_astray_and_one_to_its_successor_is_not() {
        let to = |last| flow((Ipv4Addr::new(10, 42, 1, last), 53));
        assert!(is_astray(&moved(), &to(2)));
        assert!(!is_astray(&moved(), &to(3)));
        // Also where nothing is known of before.
        let new = ChangedPublications {
            gone: BTreeSet::new(),
            ..moved()
        };
        assert!(is_astray(&new, &to(2)));
        // And where nobody takes its place.
        let gone = ChangedPublications {
            new: BTreeSet::new(),
            ..moved()
        };
        assert!(is_astray(&gone, &to(2)));
    }

    #[test]
    fn a_flow_that_began_before_the_port_was_published_is_astray() {
        assert!(is_astray(&moved(), &flow(DOOR)));
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
            assert!(!is_astray(&moved(), &flow), "{flow:?}");
        }
    }

    #[test]
    fn what_asked_no_address_by_which_the_port_is_published_is_left_alone() {
        let asked = |address| Flow {
            asked: (address, DOOR.1),
            ..flow((address, DOOR.1))
        };
        let stranger = asked(Ipv4Addr::new(192, 0, 2, 99));
        let sibling = asked(Ipv4Addr::new(10, 42, 1, 9));
        let stub = asked(Ipv4Addr::new(127, 0, 0, 53));
        for flow in [stranger, sibling, stub] {
            assert!(!is_astray(&moved(), &flow), "{flow:?}");
        }
        let another = Some(Ipv4Addr::new(192, 0, 2, 88));
        for changed in [
            ChangedPublications {
                gone: BTreeSet::new(),
                new: [(another, way(3))].into(),
            },
            ChangedPublications {
                gone: [(another, way(2))].into(),
                new: BTreeSet::new(),
            },
        ] {
            for flow in [flow(DOOR), flow((Ipv4Addr::new(10, 42, 1, 2), 53))] {
                assert!(!is_astray(&changed, &flow), "{changed:?} {flow:?}");
            }
        }
    }

    #[test]
    fn a_flow_of_loopback_is_astray_where_the_bridge_routes_it() {
        let own = (Ipv4Addr::LOCALHOST, CLIENT.1);
        let to = |asked| Flow {
            client: own,
            asked,
            answers: asked,
            answered: own,
        };
        for asked in [DOOR, (Ipv4Addr::LOCALHOST, DOOR.1)] {
            assert!(is_astray_where(&moved(), &to(asked), true), "{asked:?}");
            assert!(!is_astray_where(&moved(), &to(asked), false), "{asked:?}");
        }
    }

    #[test]
    fn a_flow_that_the_port_of_one_address_leads_is_left_alone_by_that_of_all() {
        let to_its_own = flow((Ipv4Addr::new(10, 42, 1, 2), 53));
        let changed = ChangedPublications {
            gone: BTreeSet::new(),
            new: [(None, way(3)), (Some(DOOR.0), way(2))].into(),
        };
        assert!(!is_astray(&changed, &to_its_own));
    }
}
