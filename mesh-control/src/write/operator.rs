//! What operators do to leases: end them, and keep ranges from being handed out.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::command::Command;
use crate::access::mandate::Mandate;
use crate::cluster::next_subnet::Range;
use crate::cluster::subnet_plan::SubnetIndex;
use crate::registry::{ChangeError, Registry, unix_seconds};
use crate::store::{Change, Reservation, StoreError, Subnets, Tenant};

/// Ranges that can be reserved at a time: every registration looks at all of them.
const MOST_RESERVATIONS: usize = 1024;

/// Between two looks for leases to release: a tenth of what their nodes are given, within these.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Leases that end in one change.
const MOST_RELEASED: usize = 256;

impl Registry {
    /// Ends the lease of a subnet, and removes its node, which is down. `None`: it was released before.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn release(
        &self,
        subnet: SubnetIndex,
        mandate: &Mandate,
    ) -> Result<Option<Tenant>, ChangeError> {
        self.ask(Command::Release, subnet, mandate).await
    }

    /// Ends the leases of nodes that left for good before a moment, in Unix seconds, and removes them: some of them
    /// at a time, so that others have their turn. None: that were all.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn release_departed(
        &self,
        before: i64,
        mandate: &Mandate,
    ) -> Result<Vec<Tenant>, ChangeError> {
        self.ask(Command::ReleaseDeparted, LeftBefore(before), mandate)
            .await
    }

    /// Releases the subnets of nodes that left for good `release_after` ago, until `stop`.
    pub async fn release_in_time(
        self: Arc<Self>,
        release_after: Option<Duration>,
        stop: CancellationToken,
    ) {
        let Some(release_after) = release_after else {
            return stop.cancelled().await;
        };
        let seconds = i64::try_from(release_after.as_secs()).unwrap_or(i64::MAX);
        let pause = (release_after / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let before = unix_seconds().saturating_sub(seconds);
            let released = loop {
                match self.release_departed(before, &Mandate::own()).await {
                    Ok(tenants) if tenants.is_empty() => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(error),
                }
            };
            match &released {
                Err(error) if !failing => {
                    warn!(name: "subnets-nodes-left-cannot-released", %error, "subnets of nodes that left cannot be released now");
                }
                Ok(()) if failing => {
                    info!(name: "subnets-nodes-left-can-released", "subnets of nodes that left can be released again")
                }
                _ => {}
            }
            failing = released.is_err();
        }
    }

    /// Keeps a range of subnets from being handed out. Repeating it, with another reason or the
    /// same, is success.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn reserve(
        &self,
        reservation: Reservation,
        mandate: &Mandate,
    ) -> Result<(), ChangeError> {
        self.ask(Command::Reserve, reservation, mandate).await
    }

    /// Lets a reserved range be handed out again.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn unreserve(&self, cidr: String, mandate: &Mandate) -> Result<(), ChangeError> {
        self.ask(Command::Unreserve, cidr, mandate).await
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
        let remembered = change.release_remembered(subnet).await?;
        let released = remembered || change.is_released(subnet).await?;
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
        info!(name: "operator-released-subnet", node_id = %tenant.node_id, hostname = tenant.hostname, subnet = named(registry, subnet), revision,
            "an operator released a subnet; its node was removed");
    }
}

/// A subnet as people write it.
fn named(registry: &Registry, subnet: SubnetIndex) -> String {
    let plan = registry.plan.subnet(subnet);
    plan.map_or_else(
        || format!("number {}", subnet.number()),
        |it| it.to_string(),
    )
}

/// A moment in Unix seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeftBefore(i64);

/// Ends the leases of some nodes that left before a moment.
pub(super) async fn release_departed(
    LeftBefore(moment): LeftBefore,
    change: &mut Change,
) -> Result<Result<Vec<Tenant>, ChangeError>, StoreError> {
    let tenants = change.departed(moment, MOST_RELEASED).await?;
    for tenant in &tenants {
        change.release(tenant).await?;
    }
    Ok(Ok(tenants))
}

pub(super) fn released_departed(tenants: &[Tenant], registry: &Registry, revision: i64) {
    for tenant in tenants {
        registry.copy.memory().liveness.forget(&tenant.node_id);
        info!(name: "subnet-node-left-released", node_id = %tenant.node_id, hostname = tenant.hostname, subnet = named(registry, tenant.subnet), revision,
            "the subnet of a node that left was released; the node was removed");
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
    info!(name: "operator-reserved-range",
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
    info!(name: "operator-lifted-reservation", cidr, revision, "an operator lifted a reservation");
}
