//! A node's own word about which subnet it holds.
//!
//! Where a database is new, or was restored from a backup older than a lease, the node is the only one
//! that still knows the lease, and its containers use the addresses. It is believed as long as nobody
//! else holds that subnet: given another one, it would share its old subnet with the next newcomer
//! until its containers have moved.

use ipnet::Ipv4Net;
use tracing::{info, warn};

use super::membership::LetIn;
use crate::cluster::identity::Claim;
use crate::cluster::next_subnet::Range;
use crate::cluster::subnet_plan::{NotOfPlan, SubnetIndex};
use crate::registry::Registry;
use crate::store::{Change, Reservation, StoreError, Tenant};

/// What a node's word about its subnet is worth.
pub(super) enum SubnetClaim {
    /// Nobody holds the subnet: it is the node's.
    Free(SubnetIndex),
    /// It is not a subnet of this cluster; the node may come from another one.
    NotOfPlan(NotOfPlan),
    /// An operator keeps it from being handed out.
    Reserved(Reservation),
    /// Another node leases it.
    Held(Tenant),
    /// The database does not know of a lease, but a replica remembers another node's.
    Remembered(Tenant),
    /// The node itself leases another one.
    LeasesAnother,
}

impl SubnetClaim {
    /// Looks into what a node says that leases `leased`.
    pub(super) async fn examine(
        claimed: Ipv4Net,
        claimant: &Claim<'_>,
        leased: Option<SubnetIndex>,
        registry: &Registry,
        change: &mut Change,
    ) -> Result<Option<Self>, StoreError> {
        let index = match registry.plan.index(claimed) {
            Ok(index) => index,
            Err(_) if leased.is_some() => return Ok(Some(Self::LeasesAnother)),
            Err(rule) => return Ok(Some(Self::NotOfPlan(rule))),
        };
        if let Some(leased) = leased {
            return Ok((leased != index).then_some(Self::LeasesAnother));
        }
        let only = Range {
            first: index,
            last: index,
        };
        if let Some(tenant) = change.tenant(only).await? {
            return Ok(Some(Self::Held(tenant)));
        }
        if let Some(holder) = change.remembered_as_anothers(index, claimant).await? {
            return Ok(Some(Self::Remembered(holder)));
        }
        let reservations = change.reservations().await?;
        let reservation = reservations
            .into_iter()
            .find(|reservation| reservation.range.contains(index));
        Ok(Some(reservation.map_or(Self::Free(index), |reservation| {
            Self::Reserved(reservation)
        })))
    }

    /// Tells operators what came of it.
    pub(super) fn tell(&self, claimed: Ipv4Net, let_in: &LetIn, hostname: &str) {
        let LetIn {
            node_id, subnet, ..
        } = let_in;
        match self {
            Self::Free(_) => {
                info!(name: "node-without-lease-leased-subnet", %node_id, hostname, %subnet,
                "a node without a lease was leased the subnet that it says it holds")
            }
            Self::NotOfPlan(rule) => {
                info!(name: "node-says-holds-subnet-cluster", %node_id, hostname, %subnet, %claimed, %rule,
                "a node says it holds a subnet that this cluster does not hand out; it was leased another")
            }
            Self::Reserved(reservation) => {
                warn!(name: "node-says-holds-subnet-reserved", %node_id, hostname, %subnet, %claimed,
                reserved = reservation.cidr, reason = reservation.reason,
                "a node says it holds a subnet that is reserved; it was leased another, and its \
                 containers have to move")
            }
            Self::Held(tenant) => {
                warn!(name: "node-says-holds-subnet-another", %node_id, hostname, %subnet, %claimed,
                holder = %tenant.node_id, holder_hostname = tenant.hostname,
                "a node says it holds a subnet that another node leases; it was leased another, and \
                 until its containers have moved the two use one subnet")
            }
            Self::Remembered(holder) => {
                warn!(name: "node-says-holds-subnet-remembered", %node_id, hostname, %subnet, %claimed,
                holder = %holder.node_id, holder_hostname = holder.hostname,
                "a node says it holds a subnet that is remembered as another node's, which the database has lost; \
                 it was leased another, and its containers have to move")
            }
            Self::LeasesAnother => {
                warn!(name: "node-says-holds-another-subnet", %node_id, hostname, %subnet, %claimed,
                "a node says it holds another subnet than it leases; its lease stands")
            }
        }
    }
}
