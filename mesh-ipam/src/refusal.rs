//! Why a pool refuses what it is asked.

use std::{fmt, net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;

use crate::{Lease, LeaseError, Owner, Published, PublishedError, subnet::Reserved};

/// Why a pool refuses what it is asked. Each names the value and the rule, and nothing was changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is nothing yet to lease from.
    #[error(
        "this node has no subnet yet: the control plane assigns one when the node's agent registers; \
         ask again then"
    )]
    NoSubnet,
    /// The node takes no new containers.
    #[error(
        "this node is drained, and takes no new containers: start them on another node, or let it take some again here \
         (meshctl drain --undo)"
    )]
    Drained,
    /// Not a subnet that a pool has.
    #[error("{0} is no node's subnet: it is a /16 to /30, and has no host bits")]
    Subnet(Ipv4Net),
    /// Addresses of another subnet are still held.
    #[error("the subnet cannot become {new}: {} of {old} {} leased ({}); release them first", counted(*.count), are(*.count), some_of(.owners, *.count))]
    SubnetInUse {
        /// The subnet that was given.
        new: Ipv4Net,
        /// The one that the leases are of.
        old: Ipv4Net,
        /// How many there are.
        count: u32,
        /// Who holds the first few.
        owners: Vec<Owner>,
    },
    /// An address that is none of this node's.
    #[error("address {address} lies outside the node's subnet {subnet}")]
    Outside {
        /// The address that was wished.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// An address of the subnet that no container has.
    #[error("address {address} of {subnet} is {reserved}: no container can have it")]
    Reserved {
        /// The address that was wished.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
        /// What it is.
        reserved: Reserved,
    },
    /// Somebody else's address.
    #[error("address {address} is held by {holder}")]
    Held {
        /// The address that was wished.
        address: Ipv4Addr,
        /// Who holds it.
        holder: Box<Holder>,
    },
    /// An address that a container was given by hand.
    #[error("address {address} is in use by the container behind {port}, which has no lease")]
    Occupied {
        /// The address that was wished.
        address: Ipv4Addr,
        /// Name of the port, on the host.
        port: String,
    },
    /// The owner holds another address than the one that was given.
    #[error("{owner} holds address {held}, not {given}: name that one, or release it first")]
    HoldsAnother {
        /// The owner.
        owner: Owner,
        /// What it holds.
        held: Ipv4Addr,
        /// What was given.
        given: Ipv4Addr,
    },
    /// No address is left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The owner holds nothing.
    #[error("{0} holds no address: allocate one first")]
    NoLease(Owner),
    /// Names or labels that break a rule.
    #[error(transparent)]
    Named(#[from] LeaseError),
    /// A path that cannot be kept.
    #[error("namespace {0:?} is not a path in UTF-8 of at most 4095 bytes")]
    Namespace(PathBuf),
    /// A MAC address that belongs to this project's devices, or to another address.
    #[error(
        "MAC address {} is one of the mesh's own (02:51, 02:52), or that of another address (02:53 and the \
         address' four bytes): name another, or none", show_mac(.0)
    )]
    MacReserved([u8; 6]),
    /// A MAC address that another endpoint has.
    #[error("MAC address {} is that of {holder}: name another, or none", show_mac(.mac))]
    MacHeld {
        /// The address that was given.
        mac: [u8; 6],
        /// Who has it.
        holder: Box<Holder>,
    },
    /// Ports that cannot be published.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// Ports of the host that lead to somebody else.
    #[error("published ports {given} share a port of the host with {held} of {holder}")]
    PublishedHeld {
        /// The range that was given.
        given: Published,
        /// The one that there is.
        held: Published,
        /// Whose it is.
        holder: Box<Holder>,
    },
}

fn show_mac(mac: &[u8; 6]) -> String {
    let bytes = mac.map(|byte| format!("{byte:02x}"));
    bytes.join(":")
}

/// Who holds something: `docker/quilt/3f…/eth0 (web)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The owner.
    pub owner: Owner,
    /// The first of the names by which the container is known.
    pub name: Option<String>,
}

impl From<&Lease> for Holder {
    fn from(lease: &Lease) -> Self {
        Self {
            owner: lease.owner.clone(),
            name: lease.named.names.first().cloned(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name})", self.owner),
            None => write!(f, "{}", self.owner),
        }
    }
}

/// A pool without a free address.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub struct Exhausted {
    /// The subnet.
    pub subnet: Ipv4Net,
    /// How many addresses containers can have in it.
    pub capacity: u32,
    /// How many are leased.
    pub leased: u32,
    /// The `engine/network` that holds most of them, and how many. Of several, the first by name.
    pub most: Option<(String, u32)>,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (capacity, leased) = (self.capacity, self.leased);
        write!(f, "{} has no free address: ", self.subnet)?;
        match leased == capacity {
            true => write!(f, "all {capacity} are held")?,
            false => write!(f, "of {capacity}, {leased} are held")?,
        }
        if let Some((network, count)) = &self.most {
            write!(f, ", most of them ({count}) by {network}")?;
        }
        if leased < capacity {
            let rest = capacity - leased;
            write!(f, ", and {rest} {} in use without a lease", are(rest))?;
        }
        f.write_str("; release some, or give the node a larger subnet")
    }
}

fn counted(count: u32) -> String {
    match count {
        1 => "1 address".to_owned(),
        _ => format!("{count} addresses"),
    }
}

fn are(count: u32) -> &'static str {
    match count {
        1 => "is",
        _ => "are",
    }
}

fn some_of(owners: &[Owner], count: u32) -> String {
    let mut text = owners
        .iter()
        .map(Owner::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if (owners.len() as u64) < u64::from(count) {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_says_how_many_there_are_and_who_holds_most() {
        let full = |leased, most| Exhausted {
            subnet: "10.42.1.0/24".parse().unwrap(),
            capacity: 253,
            leased,
            most,
        };
        assert_eq!(
            full(253, Some(("docker/quilt".to_owned(), 120))).to_string(),
            "10.42.1.0/24 has no free address: all 253 are held, most of them (120) by \
             docker/quilt; release some, or give the node a larger subnet"
        );
        let text = full(251, Some(("docker/quilt".to_owned(), 120))).to_string();
        assert!(
            text.contains("of 253, 251 are held, most of them (120) by docker/quilt, and 2 are"),
            "{text}"
        );
        assert!(
            full(0, None)
                .to_string()
                .contains("of 253, 0 are held, and 253 are in use")
        );
    }
}
