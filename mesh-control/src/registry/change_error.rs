//! Why a change did not happen.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use thiserror::Error;

use super::Holder;
use crate::access::Refused;
use crate::cluster::identity::Clash;
use crate::store::{Reservation, StoreError, Tenant};

/// Why a change did not happen.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The node beats too seldom to be seen alive.
    #[error(
        "a node that is silent for {node_timeout:?} is down here, and one that beats each {given:?} would be between its \
         heartbeats; {longest:?} is the longest"
    )]
    BeatsTooSeldom {
        /// The time between its heartbeats.
        given: Duration,
        /// The longest there may be.
        longest: Duration,
        /// After which a node is down.
        node_timeout: Duration,
    },
    /// A live node has the claimed key or address.
    #[error(
        "{} is in use by the live node {} ({}, host_ip {})",
        match .clash { Clash::Key => "this node_key", Clash::Address | Clash::AddressUnproven => "this host_ip" },
        .holder.hostname, .holder.node_id, .holder.host_ip
    )]
    InUse {
        /// The key or the address.
        clash: Clash,
        /// Who has it.
        holder: Holder,
    },
    /// The claimed address is kept for a node that is down, and the claim does not come from there.
    #[error(
        "the host_ip {address} is kept for the node {name} ({id}), which is down and has a certificate: only a host that comes from \
         {address} itself takes it over, and this request came from {came_from}. If this host has that address and reaches the control \
         plane from another one (a proxy, a network of its own), or that node does not come back, revoke that node \
         (quilt-mesh-control node revoke {id}); if this host is that node, let it join again by a token for it \
         (quilt-mesh-control token create --node {id})",
        address = .holder.host_ip, name = .holder.hostname, id = .holder.node_id,
        came_from = match .from { Some(from) => from.to_string(), None => "elsewhere".to_owned() }
    )]
    AddressKept {
        /// Whose it is.
        holder: Holder,
        /// Where the claim comes from.
        from: Option<Ipv4Addr>,
    },
    /// The claimed address is remembered as that of a node which the database has lost.
    #[error(
        "the host_ip {address} is remembered as that of the node {} ({}), which has a certificate and which the database has \
         lost: until that node is back, or for a day, only a host that comes from {address} itself, with a certificate, has \
         it. If that node does not come back, release its subnet {subnet} (POST /api/subnets/release)",
        .holder.hostname, .holder.node_id
    )]
    AddressRemembered {
        /// The address.
        address: Ipv4Addr,
        /// The subnet that is kept for the node.
        subnet: Ipv4Net,
        /// The node.
        holder: Tenant,
    },
    /// Every subnet is held.
    #[error(
        "all {subnets} subnets of {cluster} are leased{}, {held_by_down_nodes} of them by nodes that are down \
         and may come back; release those that will not (POST /api/subnets/release), or start a cluster \
         with a larger --cluster-cidr or a longer --node-prefix",
        match .reserved { 0 => String::new(), reserved => format!(" or reserved ({reserved})") }
    )]
    SubnetsExhausted {
        /// The cluster CIDR.
        cluster: Ipv4Net,
        /// How many subnets it has.
        subnets: u32,
        /// How many of them are reserved.
        reserved: u32,
        /// How many of them are held by nodes that are down.
        held_by_down_nodes: i64,
    },
    /// Another host goes on as this node, and this one is a copy of it.
    #[error(
        "{} is alive, and was answered since this host was: this host is a copy of it",
        match .holder {
            Some(holder) => format!("the node {} ({}, host_ip {})", holder.hostname, holder.node_id, holder.host_ip),
            None => "this node".to_owned(),
        }
    )]
    Copy {
        /// The node.
        holder: Option<Holder>,
    },
    /// No such node.
    #[error("no node has this id")]
    UnknownNode,
    /// Who has credentials is nobody without them.
    #[error(
        "{}: let this host join first (quilt-mesh-control token create, and the agent's --join)",
        match .0 {
            Some(holder) => format!(
                "the node {} ({}, host_ip {}) has a certificate, and this host shows none", holder.hostname,
                holder.node_id, holder.host_ip
            ),
            None => "new nodes need a certificate here".to_owned(),
        }
    )]
    NeedsCertificate(Option<Holder>),
    /// The join token was made for another node.
    #[error(
        "this host joined by a token that was made for the node {only:?}, and registers as {given:?}: give it that name          (--hostname), or let it join by another token"
    )]
    OtherName {
        /// The name that the token was made for.
        only: String,
        /// The name that was given.
        given: String,
    },
    /// Only a node itself can leave.
    #[error(
        "{}", match .has_one {
            true => "this is not the node_key that the node registered with",
            false => "the node registered without a node_key, so that nobody can prove to be it; deregister it, and \
                      release its subnet (POST /api/subnets/release)",
        }
    )]
    OtherKey {
        /// Whether the node has a key at all.
        has_one: bool,
    },
    /// A subnet cannot be released while its node is up.
    #[error(
        "the subnet is leased by the live node {} ({}); stop its agent first, or deregister the node",
        .0.hostname, .0.node_id
    )]
    HolderUp(Tenant),
    /// A range cannot be reserved while a node leases a subnet in it.
    #[error(
        "the range holds the subnet of the node {} ({}); release that subnet first",
        .0.hostname, .0.node_id
    )]
    Leased(Tenant),
    /// A range overlaps one that is reserved.
    #[error("{} is reserved already; unreserve it first", .0.cidr)]
    ReservedAlready(Reservation),
    /// There are as many reservations as there can be.
    #[error("there are {0} reservations already; reserve fewer, larger ranges")]
    TooManyReservations(usize),
    /// Nobody ever leased the subnet.
    #[error("the subnet is not leased")]
    NotLeased,
    /// Replicas may remember subnets that the database does not know, and have not said so yet.
    #[error(
        "subnets are leased to new nodes again in {:.1} s: the database went back to an earlier state, or this replica \
         has just started, and the others say first which subnets they remember as held; a node that says which \
         subnet it holds need not wait", .0.as_secs_f64()
    )]
    Held(Duration),
    /// Who asks was let in when the request began, and may not any more.
    #[error("{}", .0.detail)]
    NotAnyMore(Refused),
    /// The range is not one that was reserved.
    #[error("there is no reservation of exactly this range; see GET /api/subnets")]
    NotReserved,
    /// The database.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The process stops.
    #[error("the control plane is stopping; try again, or another one")]
    Stopping,
}
