//! Why a listed node is not a peer.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_problems::{
    Kind,
    catalog::agent::{
        ADDRESS_OF_TWO_NODES, LISTED_ADDRESS_UNUSABLE, LISTED_STATUS_UNKNOWN,
        LISTED_SUBNET_UNUSABLE, OWN_ADDRESS_CLAIMED, OWN_SUBNET_CLAIMED, SUBNET_OF_TWO_NODES,
    },
};

use crate::{excerpt::Excerpt, node::SubnetError, underlay::UnderlayAddressError};

/// Why a listed node is not a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// Its subnet is not one.
    #[error("subnet {}: {error}", Excerpt(.text))]
    Subnet {
        /// What the list says.
        text: String,
        /// The rule it breaks.
        error: SubnetError,
    },
    /// Its address is not one.
    #[error("host_ip {}: {error}", Excerpt(.text))]
    Address {
        /// What the list says.
        text: String,
        /// The rule it breaks.
        error: UnderlayAddressError,
    },
    /// Its status is none this version knows.
    #[error("its status is neither up nor down")]
    Status,
    /// It claims this node's subnet.
    #[error("its subnet {subnet} overlaps this node's own {own}")]
    OwnSubnet {
        /// The claim.
        subnet: Ipv4Net,
        /// This node's subnet.
        own: Ipv4Net,
    },
    /// It claims this node's address.
    #[error("its host_ip {0} is this node's own")]
    OwnAddress(Ipv4Addr),
    /// Another peer holds the subnet.
    #[error("its subnet {subnet} overlaps {held} of node {}", Excerpt(.holder))]
    SubnetTaken {
        /// The claim.
        subnet: Ipv4Net,
        /// The holder's subnet.
        held: Ipv4Net,
        /// The holder's node id.
        holder: String,
    },
    /// Another peer holds the address.
    #[error("its host_ip {address} is that of node {}", Excerpt(.holder))]
    AddressTaken {
        /// The claim.
        address: Ipv4Addr,
        /// The holder's node id.
        holder: String,
    },
}

impl Skip {
    /// What each of these is to an operator.
    pub const KINDS: [&'static Kind; 7] = [
        &LISTED_SUBNET_UNUSABLE,
        &LISTED_ADDRESS_UNUSABLE,
        &LISTED_STATUS_UNKNOWN,
        &OWN_SUBNET_CLAIMED,
        &OWN_ADDRESS_CLAIMED,
        &SUBNET_OF_TWO_NODES,
        &ADDRESS_OF_TWO_NODES,
    ];

    /// Which of [`Self::KINDS`] it is.
    #[must_use]
    pub fn kind(&self) -> &'static Kind {
        match self {
            Self::Subnet { .. } => &LISTED_SUBNET_UNUSABLE,
            Self::Address { .. } => &LISTED_ADDRESS_UNUSABLE,
            Self::Status => &LISTED_STATUS_UNKNOWN,
            Self::OwnSubnet { .. } => &OWN_SUBNET_CLAIMED,
            Self::OwnAddress(_) => &OWN_ADDRESS_CLAIMED,
            Self::SubnetTaken { .. } => &SUBNET_OF_TWO_NODES,
            Self::AddressTaken { .. } => &ADDRESS_OF_TWO_NODES,
        }
    }

    /// The rule that it breaks, without what breaks it.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Subnet { .. } => "a subnet is a network",
            Self::Address { .. } => "a node has a unicast address",
            Self::Status => "a status is known",
            Self::OwnSubnet { .. } => "this node's subnet is its own",
            Self::OwnAddress(_) => "this node's address is its own",
            Self::SubnetTaken { .. } => "a subnet has one node",
            Self::AddressTaken { .. } => "an address has one node",
        }
    }
}
