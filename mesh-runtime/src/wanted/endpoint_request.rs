//! What a call may say of a container. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::{
    endpoint::{AttachedEndpoint, may_hold, strict_ports},
    interface::{InterfaceNameError, check_name},
    subnet::gateway,
};
use crate::{
    desired::endpoints::{inside, macs},
    diff::change::DisplayMac,
    ebpf::Mac,
    observed::{Link, LinkKind, Observed},
};

/// Why a container cannot be attached. Each names the value and the rule it breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EndpointError {
    #[error("interface: {0}")]
    Name(#[from] InterfaceNameError),
    #[error(
        "{0} was attached by its owner, who detaches it over the runtime's Unix socket: meshctl addresses \
         names the owner"
    )]
    Owned(Ipv4Addr),
    #[error("interface {0:?} is not there: create the veth pair before this call")]
    UnknownInterface(String),
    #[error(
        "interface {interface} is no port of the bridge {bridge}: attach it first (ip link set \
         {interface} master {bridge})"
    )]
    NotAPort { interface: String, bridge: String },
    #[error(
        "interface {interface} is {what}: the fast path delivers to the host's end of a veth \
         pair alone; others are reached over the kernel path without a call"
    )]
    NotVeth { interface: String, what: String },
    #[error(
        "the other end of {0} is in the host's own namespace: move it into the container's \
         before this call"
    )]
    NotInAContainer(String),
    #[error("address {0:?} is not an IPv4 address, such as 10.42.1.2")]
    NotAnAddress(String),
    #[error("address {address} lies outside this node's subnet {subnet}")]
    OutsideSubnet { address: Ipv4Addr, subnet: Ipv4Net },
    #[error("address {address} is the gateway of {subnet}, which is the bridge's own")]
    Gateway { address: Ipv4Addr, subnet: Ipv4Net },
    #[error("address {address} names the subnet {subnet} or its broadcast, not a container")]
    NotAHost { address: Ipv4Addr, subnet: Ipv4Net },
    #[error("address {address} is held by the container behind {holder}: detach that one first")]
    Held { address: Ipv4Addr, holder: String },
    #[error(
        "interface {0} is that of a registered container, whose address and MAC address are what they were \
         registered with: detach its owner's endpoint first"
    )]
    Registered(String),
    #[error("MAC address {mac} is that of the container behind {holder}: no two have one")]
    MacHeld { mac: String, holder: String },
    #[error("MAC address {0:?} is not six bytes in hexadecimal, such as 02:42:0a:2a:01:02")]
    NotAMac(String),
    #[error("MAC address {0} is not that of one interface: it is a group's, or all zeros")]
    NotUnicast(String),
    #[error(
        "no address was given, and the container behind {interface} has none of {subnet} yet: \
         name the one it will have"
    )]
    NoAddress { interface: String, subnet: Ipv4Net },
    #[error(
        "no address was given, and the container behind {interface} has several ({}): name one \
         in each call", list(.addresses)
    )]
    SeveralAddresses {
        interface: String,
        addresses: BTreeSet<Ipv4Addr>,
    },
    #[error(
        "no MAC address was given, and this process may not look into the container behind {0}: \
         name it"
    )]
    NoMac(String),
}

fn list(addresses: &BTreeSet<Ipv4Addr>) -> String {
    let texts: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
    texts.join(", ")
}

/// A container, as a call names it.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndpointRequest {
    pub(crate) interface: String,
    /// Empty: as found in the container.
    pub(crate) address: String,
    /// Empty: as found in the container.
    pub(crate) mac: String,
}

/// Checks a request against what the node shows.
pub(crate) fn check(
    request: &EndpointRequest,
    observed: &Observed,
    bridge: &str,
    subnet: Ipv4Net,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
) -> Result<(Ipv4Addr, AttachedEndpoint), EndpointError> {
    let port = port(&request.interface, observed, bridge)?;
    let interface = port.name.clone();
    if strict_ports(attached).contains(&port.index) {
        return Err(EndpointError::Registered(interface));
    }
    let found = inside(observed, port.index);
    let mac = match request.mac.as_str() {
        "" => None,
        text => Some(parse_mac(text)?),
    };
    if mac.or_else(|| found?.mac).is_none() {
        return Err(EndpointError::NoMac(interface));
    }
    if let Some(mac) = mac
        && let Some(holder) = mac_holder(mac, port.index, observed, bridge, attached)
    {
        let mac = DisplayMac(mac).to_string();
        return Err(EndpointError::MacHeld { mac, holder });
    }
    let address = match request.address.as_str() {
        "" => {
            let own: BTreeSet<Ipv4Addr> = found
                .iter()
                .flat_map(|it| &it.addresses)
                .copied()
                .filter(|&address| may_hold(subnet, address))
                .collect();
            let mut some = own.iter();
            match (some.next(), some.next()) {
                (Some(&only), None) => only,
                (None, _) => return Err(EndpointError::NoAddress { interface, subnet }),
                _ => {
                    return Err(EndpointError::SeveralAddresses {
                        interface,
                        addresses: own,
                    });
                }
            }
        }
        text => parse_address(text, subnet)?,
    };
    if let Some(holder) = holder(address, port.index, observed, bridge, attached) {
        return Err(EndpointError::Held { address, holder });
    }
    let endpoint = AttachedEndpoint {
        link: port.index,
        interface,
        mac,
        strict: false,
    };
    Ok((address, endpoint))
}

fn port<'a>(
    interface: &str,
    observed: &'a Observed,
    bridge: &str,
) -> Result<&'a Link, EndpointError> {
    check_name(interface)?;
    let link = observed
        .link_named(interface)
        .ok_or_else(|| EndpointError::UnknownInterface(interface.to_owned()))?;
    let bridge_link = observed.link_named(bridge).map(|link| link.index);
    if bridge_link.is_none() || link.master != bridge_link {
        return Err(EndpointError::NotAPort {
            interface: interface.to_owned(),
            bridge: bridge.to_owned(),
        });
    }
    if link.kind != LinkKind::Veth {
        return Err(EndpointError::NotVeth {
            interface: interface.to_owned(),
            what: link.kind.describe(),
        });
    }
    if link.far_end.is_none() {
        return Err(EndpointError::NotInAContainer(interface.to_owned()));
    }
    Ok(link)
}

fn parse_address(text: &str, subnet: Ipv4Net) -> Result<Ipv4Addr, EndpointError> {
    let address: Ipv4Addr = text
        .parse()
        .map_err(|_| EndpointError::NotAnAddress(text.chars().take(64).collect()))?;
    if !subnet.contains(&address) {
        return Err(EndpointError::OutsideSubnet { address, subnet });
    }
    if address == gateway(subnet) {
        return Err(EndpointError::Gateway { address, subnet });
    }
    if !may_hold(subnet, address) {
        return Err(EndpointError::NotAHost { address, subnet });
    }
    Ok(address)
}

pub(crate) fn parse_mac(text: &str) -> Result<Mac, EndpointError> {
    let not_a_mac = || EndpointError::NotAMac(text.chars().take(64).collect());
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().ok_or_else(not_a_mac)?;
        if part.len() != 2 || !part.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(not_a_mac());
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| not_a_mac())?;
    }
    if parts.next().is_some() {
        return Err(not_a_mac());
    }
    // The lowest bit of the first byte makes it a group's (IEEE 802).
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(EndpointError::NotUnicast(text.to_owned()));
    }
    Ok(mac)
}

/// The interface behind which another container has the MAC address.
fn mac_holder(
    mac: Mac,
    port: u32,
    observed: &Observed,
    bridge: &str,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
) -> Option<String> {
    let bridge = observed.link_named(bridge)?.index;
    let holder = *macs(observed, bridge, attached).get(&mac)?;
    (holder != port).then(|| observed.name_of(holder))
}

/// The interface behind which another container has the address.
fn holder(
    address: Ipv4Addr,
    port: u32,
    observed: &Observed,
    bridge: &str,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
) -> Option<String> {
    if let Some(other) = attached.get(&address) {
        return (other.link != port).then(|| other.interface.clone());
    }
    let bridge = observed.link_named(bridge)?.index;
    let strict = strict_ports(attached);
    observed
        .ports_of(bridge)
        // What a registered container gives its interface is nothing that it has.
        .filter(|other| other.index != port && !strict.contains(&other.index))
        .find(|other| {
            inside(observed, other.index).is_some_and(|it| it.addresses.contains(&address))
        })
        .map(|other| other.name.clone())
}

/// Which attached endpoints a call to detach means: all that fit what it names. A registered one goes with
/// its owner's call alone.
///
/// # Errors
///
/// A call that names nothing, or what cannot be a name or an address, or a registered one alone.
pub(crate) fn matching(
    interface: &str,
    address: &str,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
) -> Result<Vec<Ipv4Addr>, EndpointError> {
    let named: Option<Ipv4Addr> = match address {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| EndpointError::NotAnAddress(text.chars().take(64).collect()))?,
        ),
    };
    if named.is_none() || !interface.is_empty() {
        check_name(interface)?;
    }
    let meant = attached.iter().filter(|(held, endpoint)| {
        named.is_none_or(|named| named == **held)
            && (interface.is_empty() || interface == endpoint.interface)
    });
    let (owned, by_hand): (Vec<_>, Vec<_>) = meant.partition(|(_, endpoint)| endpoint.strict);
    match owned.first() {
        Some((held, _)) if by_hand.is_empty() => Err(EndpointError::Owned(**held)),
        _ => Ok(by_hand.into_iter().map(|(&held, _)| held).collect()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mac_address_is_read_back_as_it_is_written(mut mac: Mac) {
            mac[0] &= 0xfe;
            mac[5] |= 1;
            let text = DisplayMac(mac).to_string();
            prop_assert_eq!(parse_mac(&text), Ok(mac));
            prop_assert_eq!(parse_mac(&text.to_uppercase()), Ok(mac));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in any::<String>()) {
            let _ = parse_mac(&text);
            let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);
            if let Ok(address) = parse_address(&text, subnet) {
                prop_assert!(may_hold(subnet, address));
            }
        }
    }

    #[test]
    fn what_is_no_mac_address_of_one_interface_is_refused() {
        for text in [
            "02:42:0a:2a:01",
            "02:42:0a:2a:01:02:03",
            "2:42:0a:2a:01:02",
            "+2:42:0a:2a:01:02",
            "02-42-0a-2a-01-02",
        ] {
            assert_eq!(
                parse_mac(text),
                Err(EndpointError::NotAMac(text.to_owned()))
            );
        }
        for text in [
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert_eq!(
                parse_mac(text),
                Err(EndpointError::NotUnicast(text.to_owned()))
            );
        }
    }

    #[test]
    fn detaching_takes_all_that_fits_what_is_named() {
        let endpoint = |interface: &str| AttachedEndpoint {
            link: 7,
            interface: interface.to_owned(),
            mac: None,
            strict: false,
        };
        let [a, b, c] = [2, 3, 4].map(|last| Ipv4Addr::new(10, 42, 1, last));
        let attached = [
            (a, endpoint("c1")),
            (b, endpoint("c1")),
            (c, endpoint("c2")),
        ]
        .into();
        assert_eq!(matching("c1", "", &attached), Ok(vec![a, b]));
        assert_eq!(matching("", "10.42.1.4", &attached), Ok(vec![c]));
        assert_eq!(matching("c1", "10.42.1.4", &attached), Ok(vec![]));
        assert_eq!(matching("c9", "", &attached), Ok(vec![]));
        assert!(matching("", "", &attached).is_err());
        assert!(matching("c1", "10.42.1", &attached).is_err());
    }
}
