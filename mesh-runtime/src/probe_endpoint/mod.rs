//! The node's own endpoint for probes: a container of one thread's making, with nobody in it.
//!
//! A host's own packets leave by the VXLAN device. To speak of the path that containers' packets take, something
//! has to send as a container does: from behind a port of the bridge. This is a veth pair of which one end is such
//! a port, and the other in a network namespace that the runtime holds. Bridge, programs and guards know it by what
//! they see, as any container that nobody has registered. The namespace answers ICMP echo requests, as every kernel
//! does, and offers nothing else: no process is in it, no socket listens, it forwards nothing and speaks no IPv6.
//!
//! Its address is the last of the node's subnet, so that every other node can compute it. It is no lease: those
//! outlive restarts and keep the node from another subnet, and this endpoint does neither. As long as it is there
//! the registry knows its address as one in use, and a container that has it already keeps it.
//!
//! The namespace ends with the runtime's process, and the pair with the namespace. The next runtime makes it anew.
//!
//! [`plan`] says what is to be done (pure), [`make`] does it, [`namespace`] is where it is done.

mod make;
mod namespace;

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;

pub(crate) use make::{Made, make};
pub(crate) use namespace::ProbeNamespace;

use crate::{
    ebpf::Mac,
    observed::{Link, LinkKind, Observed},
};

/// Name of the host's end of the pair.
pub(crate) const NAME: &str = "quilt-probe";
/// Name of the other end, in its namespace.
pub(crate) const INSIDE: &str = "probe0";
/// MAC address of the host's end, which together with the name says that it is ours. A bridge without one of its own
/// takes the lowest of its ports', and this is higher than the containers' usual ones.
pub(crate) const MAC: Mac = [0xfe, 0x51, 0, 0, 0, 1];

/// The longest prefix of a subnet that has one: with 16 addresses, of which containers can have 13. The next longer
/// leaves them 5, too few to take one away.
const LONGEST_PREFIX: u8 = 28;

/// The address that the probe endpoint of a node with `subnet` has: the last before the broadcast address. `None`
/// where the subnet is too small for one.
pub(crate) fn address_in(subnet: Ipv4Net) -> Option<Ipv4Addr> {
    let last = u32::from(subnet.broadcast()).checked_sub(1)?;
    (subnet.prefix_len() <= LONGEST_PREFIX).then(|| last.into())
}

/// Whether this project made an interface for probes.
pub(crate) fn is_ours(link: &Link) -> bool {
    link.name == NAME && link.kind == LinkKind::Veth && link.mac == Some(MAC)
}

/// What it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) subnet: Ipv4Net,
    pub(crate) address: Ipv4Addr,
    /// The network that it has a route to.
    pub(crate) cluster: Ipv4Net,
    /// The most that it sends at once, in bytes of IPv4: the overlay's MTU.
    pub(crate) mtu: u32,
    /// Index and MTU of the bridge.
    pub(crate) bridge: (u32, u32),
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WhyNone {
    /// Whoever started the runtime wants none.
    TurnedOff,
    /// Subnet, bridge or underlay are not there.
    NotYet,
    /// The subnet has too few addresses.
    Small(Ipv4Net),
    /// Somebody has its address.
    Taken { address: Ipv4Addr, holder: String },
    /// Somebody else's interface has its name.
    NameTaken { what: String },
    /// It could not be made.
    Failed(String),
    /// Neither may be told, as without CAP_SYS_ADMIN.
    NotPermitted,
}

impl WhyNone {
    /// Whether somebody can do something about it that he may not know of.
    pub(crate) fn is_problem(&self) -> bool {
        matches!(
            self,
            Self::Taken { .. } | Self::NameTaken { .. } | Self::Failed(_)
        )
    }
}

impl fmt::Display for WhyNone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TurnedOff => write!(f, "the runtime was started with --probe-endpoint off"),
            Self::NotYet => write!(f, "it is about to be made"),
            Self::Small(subnet) => write!(
                f,
                "{subnet} has too few addresses to take one for it (a /{LONGEST_PREFIX} has enough)"
            ),
            Self::Taken { address, holder } => write!(f, "{holder} has its address {address}"),
            Self::NameTaken { what } => write!(f, "{NAME} is {what} of somebody else"),
            Self::Failed(reason) => write!(f, "{reason}"),
            Self::NotPermitted => write!(
                f,
                "the runtime may not make network namespaces (CAP_SYS_ADMIN)"
            ),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is as it is to be, or not there where it is not to be.
    Nothing,
    /// Make it, after deleting the interface with that index.
    Make { wish: Wish, delete: Option<u32> },
    /// Delete it.
    Delete(u32),
}

/// What is to be done, given what was made by this process and is the `wish`, or why there is none. Pure.
///
/// # Errors
///
/// That somebody else's interface has its name.
pub(crate) fn plan(
    observed: &Observed,
    made: Option<&Made>,
    wish: Result<Wish, &WhyNone>,
) -> Result<Plan, WhyNone> {
    let existing = observed.link_named(NAME);
    if let Some(link) = existing.filter(|link| !is_ours(link)) {
        return Err(WhyNone::NameTaken {
            what: link.kind.describe(),
        });
    }
    let Ok(wish) = wish else {
        return Ok(existing.map_or(Plan::Nothing, |link| Plan::Delete(link.index)));
    };
    let delete = existing.map(|link| link.index);
    let right =
        made.is_some_and(|made| existing.is_some_and(|link| is_right(observed, made, link, &wish)));
    Ok(match right {
        true => Plan::Nothing,
        false => Plan::Make { wish, delete },
    })
}

/// Whether it is as it is to be, as far as that is seen.
fn is_right(observed: &Observed, made: &Made, link: &Link, wish: &Wish) -> bool {
    let container = observed.containers.get(&link.index);
    let inside = container.and_then(|container| container.interface.as_ref());
    made.index == link.index
        && (made.wish.address, made.wish.subnet, made.wish.mtu)
            == (wish.address, wish.subnet, wish.mtu)
        && link.up
        && link.master == Some(wish.bridge.0)
        // Whether it can be looked into is another question.
        && inside.is_none_or(|inside| inside.up && inside.addresses.contains(&wish.address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::containers::{Container, FarEnd, Interface};

    const BRIDGE: u32 = 3;
    const INDEX: u32 = 9;

    fn wish() -> Wish {
        let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);
        Wish {
            subnet,
            address: address_in(subnet).unwrap(),
            cluster: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16),
            mtu: 1450,
            bridge: (BRIDGE, 1450),
        }
    }

    fn link() -> Link {
        Link {
            index: INDEX,
            name: NAME.to_owned(),
            kind: LinkKind::Veth,
            mac: Some(MAC),
            mtu: 1450,
            up: true,
            master: Some(BRIDGE),
            far_end: None,
            near_end: None,
            filters_vlans: false,
            hairpin: false,
        }
    }

    fn shown(link: Link) -> Observed {
        let interface = Interface {
            mac: None,
            up: true,
            addresses: [wish().address].into(),
        };
        let container = Container {
            far_end: FarEnd {
                namespace: 0,
                link: 2,
            },
            interface: Some(interface),
        };
        Observed {
            containers: [(link.index, container)].into(),
            links: [(link.index, link)].into(),
            ..Observed::default()
        }
    }

    fn made() -> Made {
        Made::for_tests(INDEX, wish())
    }

    fn anew(delete: Option<u32>) -> Result<Plan, WhyNone> {
        let wish = wish();
        Ok(Plan::Make { wish, delete })
    }

    #[test]
    fn its_address_is_the_last_of_the_subnet_and_small_subnets_have_none() {
        for (subnet, address) in [
            ("10.42.1.0/24", Some([10, 42, 1, 254])),
            ("10.42.1.128/25", Some([10, 42, 1, 254])),
            ("10.42.0.0/20", Some([10, 42, 15, 254])),
            ("10.42.1.16/28", Some([10, 42, 1, 30])),
            ("10.42.1.16/29", None),
            ("10.42.1.16/30", None),
        ] {
            let found = address_in(subnet.parse().unwrap());
            assert_eq!(found, address.map(Ipv4Addr::from), "{subnet}");
        }
    }

    #[test]
    fn what_is_right_is_left_alone_and_what_is_missing_is_made() {
        let made = made();
        assert_eq!(
            plan(&shown(link()), Some(&made), Ok(wish())),
            Ok(Plan::Nothing)
        );
        let none = Observed::default();
        assert_eq!(plan(&none, None, Ok(wish())), anew(None));
        assert_eq!(plan(&none, Some(&made), Ok(wish())), anew(None));
    }

    #[test]
    fn what_an_earlier_process_left_or_somebody_changed_is_made_anew() {
        let again = anew(Some(INDEX));
        assert_eq!(plan(&shown(link()), None, Ok(wish())), again);
        let made = made();
        let down = Link {
            up: false,
            ..link()
        };
        let elsewhere = Link {
            master: None,
            ..link()
        };
        for changed in [down, elsewhere] {
            assert_eq!(plan(&shown(changed), Some(&made), Ok(wish())), again);
        }
        let mut bare = shown(link());
        for container in bare.containers.values_mut() {
            container.interface.as_mut().unwrap().addresses.clear();
        }
        assert_eq!(plan(&bare, Some(&made), Ok(wish())), again);
        let smaller = Wish {
            mtu: 1400,
            ..wish()
        };
        let planned = plan(&shown(link()), Some(&made), Ok(smaller));
        let delete = Some(INDEX);
        assert_eq!(
            planned,
            Ok(Plan::Make {
                wish: smaller,
                delete
            })
        );
    }

    #[test]
    fn where_there_is_to_be_none_it_goes() {
        let why = WhyNone::TurnedOff;
        let made = made();
        assert_eq!(
            plan(&shown(link()), Some(&made), Err(&why)),
            Ok(Plan::Delete(INDEX))
        );
        assert_eq!(
            plan(&Observed::default(), None, Err(&why)),
            Ok(Plan::Nothing)
        );
    }

    #[test]
    fn an_interface_of_that_name_that_is_not_ours_is_left_alone() {
        let foreign = Link {
            mac: Some([2, 0, 0, 0, 0, 7]),
            ..link()
        };
        let kind = Link {
            kind: LinkKind::Bridge,
            ..link()
        };
        for other in [foreign, kind] {
            let planned = plan(&shown(other), None, Ok(wish()));
            assert!(
                matches!(planned, Err(WhyNone::NameTaken { .. })),
                "{planned:?}"
            );
        }
    }
}
