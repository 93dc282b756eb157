//! What operators do to leases: end them, and keep ranges from being handed out.

use tracing::info;

use super::command::Command;
use crate::cluster::lease::Range;
use crate::cluster::subnet_plan::SubnetIndex;
use crate::registry::{ChangeError, Registry, unix_seconds};
use crate::store::{Change, Reservation, StoreError, Subnets, Tenant};

/// Ranges that can be reserved at a time: every registration looks at all of them.
const MOST_RESERVATIONS: usize = 1024;

impl Registry {
    /// Ends the lease of a subnet, and removes its node, which is down. `None`: it was released before.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn release(&self, subnet: SubnetIndex) -> Result<Option<Tenant>, ChangeError> {
        self.ask(Command::Release, subnet).await
    }

    /// Keeps a range of subnets from being handed out. Repeating it, with another reason or the
    /// same, is success.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn reserve(&self, reservation: Reservation) -> Result<(), ChangeError> {
        self.ask(Command::Reserve, reservation).await
    }

    /// Lets a reserved range be handed out again.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn unreserve(&self, cidr: String) -> Result<(), ChangeError> {
        self.ask(Command::Unreserve, cidr).await
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

/// Ends the lease of a subnet. `None`: it was released before.
pub(super) async fn release(
    subnet: SubnetIndex,
    change: &mut Change,
) -> Result<Result<Option<Tenant>, ChangeError>, StoreError> {
    let only = Range {
        first: subnet,
        last: subnet,
    };
    let Some(tenant) = change.tenant(only).await? else {
        let released = change.is_released(subnet).await?;
        return Ok(released.then_some(None).ok_or(ChangeError::NotLeased));
    };
    if tenant.up {
        return Ok(Err(ChangeError::HolderUp(tenant)));
    }
    change.release(&tenant).await?;
    Ok(Ok(Some(tenant)))
}

pub(super) fn released(
    subnet: SubnetIndex,
    tenant: Option<&Tenant>,
    registry: &Registry,
    revision: i64,
) {
    if let Some(tenant) = tenant {
        registry.copy.memory().liveness.forget(&tenant.node_id);
        info!(node_id = %tenant.node_id, hostname = tenant.hostname, subnet = subnet.number(), revision,
            "an operator released a subnet; its node was removed");
    }
}

/// Keeps a range from being leased.
pub(super) async fn reserve(
    reservation: &Reservation,
    change: &mut Change,
) -> Result<Result<(), ChangeError>, StoreError> {
    let reservations = change.reservations().await?;
    let same = reservations
        .iter()
        .find(|other| other.range.overlaps(&reservation.range));
    match same {
        Some(other) if other.cidr != reservation.cidr => {
            return Ok(Err(ChangeError::ReservedAlready(other.clone())));
        }
        Some(other) if other.reason == reservation.reason => return Ok(Ok(())),
        None if reservations.len() >= MOST_RESERVATIONS => {
            return Ok(Err(ChangeError::TooManyReservations(MOST_RESERVATIONS)));
        }
        _ => {}
    }
    if let Some(tenant) = change.tenant(reservation.range).await? {
        return Ok(Err(ChangeError::Leased(tenant)));
    }
    change.reserve(reservation, unix_seconds()).await?;
    Ok(Ok(()))
}

pub(super) fn reserved(reservation: &Reservation, revision: i64) {
    info!(
        cidr = reservation.cidr,
        reason = reservation.reason,
        revision,
        "an operator reserved a range"
    );
}

/// Lets a range be leased again.
pub(super) async fn unreserve(
    cidr: &str,
    change: &mut Change,
) -> Result<Result<(), ChangeError>, StoreError> {
    let found = change.unreserve(cidr).await?;
    Ok(found.then_some(()).ok_or(ChangeError::NotReserved))
}

pub(super) fn unreserved(cidr: &str, revision: i64) {
    info!(cidr, revision, "an operator lifted a reservation");
}
