//! What operators do to leases: end them, and keep ranges from being handed out.

use tracing::info;

use super::commit::Request;
use super::{ChangeError, Registry, unix_seconds};
use crate::lease::Range;
use crate::store::{Change, Reservation, StoreError, Subnets, Tenant};
use crate::subnet_plan::SubnetIndex;

/// Ranges that can be reserved at a time: every registration looks at all of them.
const MOST_RESERVATIONS: usize = 1024;

impl Registry {
    /// Ends the lease of a subnet, and removes its node, which is down. `None`: it was released before.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn release(&self, subnet: SubnetIndex) -> Result<Option<Tenant>, ChangeError> {
        self.ask(Release(subnet)).await
    }

    /// Keeps a range of subnets from being handed out. Repeating it, with another reason or the
    /// same, is success.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn reserve(&self, reservation: Reservation) -> Result<(), ChangeError> {
        self.ask(Reserve(reservation)).await
    }

    /// Lets a reserved range be handed out again.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn unreserve(&self, cidr: String) -> Result<(), ChangeError> {
        self.ask(Unreserve(cidr)).await
    }

    /// All leases and reservations.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    pub async fn subnets(&self) -> Result<Subnets, StoreError> {
        self.store.subnets().await
    }
}

struct Release(SubnetIndex);

impl Request for Release {
    type Outcome = Option<Tenant>;

    async fn attempt(
        &self,
        _: &Registry,
        change: &mut Change,
    ) -> Result<Result<Option<Tenant>, ChangeError>, StoreError> {
        let only = Range {
            first: self.0,
            last: self.0,
        };
        let Some(tenant) = change.tenant(only).await? else {
            let released = change.is_released(self.0).await?;
            return Ok(released.then_some(None).ok_or(ChangeError::NotLeased));
        };
        if tenant.up {
            return Ok(Err(ChangeError::HolderUp(tenant)));
        }
        change.release(&tenant).await?;
        Ok(Ok(Some(tenant)))
    }

    fn done(&self, registry: &Registry, released: &Option<Tenant>, revision: i64) {
        if let Some(tenant) = released {
            registry.liveness().forget(&tenant.node_id);
            info!(node_id = %tenant.node_id, hostname = tenant.hostname, subnet = self.0.number(), revision,
                "an operator released a subnet; its node was removed");
        }
    }
}

struct Reserve(Reservation);

impl Request for Reserve {
    type Outcome = ();

    async fn attempt(
        &self,
        _: &Registry,
        change: &mut Change,
    ) -> Result<Result<(), ChangeError>, StoreError> {
        let reservations = change.reservations().await?;
        let same = reservations
            .iter()
            .find(|other| other.range.overlaps(&self.0.range));
        match same {
            Some(other) if other.cidr != self.0.cidr => {
                return Ok(Err(ChangeError::ReservedAlready(other.clone())));
            }
            Some(other) if other.reason == self.0.reason => return Ok(Ok(())),
            None if reservations.len() >= MOST_RESERVATIONS => {
                return Ok(Err(ChangeError::TooManyReservations(MOST_RESERVATIONS)));
            }
            _ => {}
        }
        if let Some(tenant) = change.tenant(self.0.range).await? {
            return Ok(Err(ChangeError::Leased(tenant)));
        }
        change.reserve(&self.0, unix_seconds()).await?;
        Ok(Ok(()))
    }

    fn done(&self, _: &Registry, (): &(), revision: i64) {
        info!(
            cidr = self.0.cidr,
            reason = self.0.reason,
            revision,
            "an operator reserved a range"
        );
    }
}

struct Unreserve(String);

impl Request for Unreserve {
    type Outcome = ();

    async fn attempt(
        &self,
        _: &Registry,
        change: &mut Change,
    ) -> Result<Result<(), ChangeError>, StoreError> {
        let found = change.unreserve(&self.0).await?;
        Ok(found.then_some(()).ok_or(ChangeError::NotReserved))
    }

    fn done(&self, _: &Registry, (): &(), revision: i64) {
        info!(cidr = self.0, revision, "an operator lifted a reservation");
    }
}
