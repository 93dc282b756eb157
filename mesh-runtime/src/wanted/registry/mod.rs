//! The registry of leases and endpoints, behind the calls: what is durable is written here, what is
//! of the kernel is asked of the loop, and what fails half way is undone.

mod attach;
mod bury;
mod publish;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
mod turn;

use std::{fmt, net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use mesh_ipam::{
    Endpoint, Granted, Ipam, IpamError, Lease, Lifetime, NamedLabels, Owner, Request, Tombstones,
};
use tonic::Status;

use crate::{
    api::{
        ask::ask,
        command::{Command, Commands, Refusal},
    },
    observed::namespace::Namespace,
};
pub(crate) use sweep::Sweeper;
use turn::Turns;

/// The longest a look at files waits.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Why a call did not do what it asks.
#[derive(Debug)]
pub(crate) enum CallError {
    /// It is refused.
    Refused(Refusal),
    /// It failed; what it did is undone as far as that was possible.
    Failed(Status),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Failed(status) => f.write_str(status.message()),
        }
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl From<IpamError> for CallError {
    fn from(error: IpamError) -> Self {
        let passes = match &error {
            // There may be room in a moment, and a successor has the leases.
            IpamError::Disk(_) | IpamError::Closed => true,
            IpamError::Refused(refusal) => matches!(
                refusal,
                // Until an operator says so, on another node or on this one.
                mesh_ipam::Refusal::NoSubnet | mesh_ipam::Refusal::Drained
            ),
        };
        Self::Refused(match passes {
            true => Refusal::for_now(error.to_string()),
            false => Refusal::because(error),
        })
    }
}

/// What a lease is asked for with.
#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    pub(crate) owner: Owner,
    pub(crate) wished: Option<Ipv4Addr>,
    /// Path of the namespace with which it ends.
    pub(crate) namespace: Option<String>,
    pub(crate) outlives_boot: bool,
    pub(crate) named: NamedLabels,
}

/// The registry.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    ipam: Ipam,
    commands: Commands,
    /// The network that all nodes' subnets are of.
    cluster: Ipv4Net,
    /// This life of the host's network namespace.
    life: Arc<str>,
    turns: Turns,
    /// What callers leave that find no runtime.
    tombstones: Option<Tombstones>,
}

impl Registry {
    pub(crate) fn new(
        ipam: Ipam,
        commands: Commands,
        cluster: Ipv4Net,
        life: &str,
        tombstones: Option<Tombstones>,
    ) -> Self {
        Self {
            ipam,
            commands,
            cluster,
            life: life.into(),
            turns: Turns::default(),
            tombstones,
        }
    }

    pub(crate) fn cluster(&self) -> Ipv4Net {
        self.cluster
    }

    pub(crate) fn ipam(&self) -> &Ipam {
        &self.ipam
    }

    /// Leases an address.
    pub(crate) async fn allocate(&self, allocation: Allocation) -> Result<Lease, CallError> {
        let _turn = self.turns.take(&allocation.owner).await?;
        self.bury(&allocation.owner).await?;
        let namespace = match allocation.namespace {
            Some(path) => Some(open(path, None).await?.named().clone()),
            None => None,
        };
        let lifetime = match allocation.outlives_boot {
            true => Lifetime::Released,
            false => self.lifetime(),
        };
        let request = Request {
            owner: allocation.owner,
            wished: allocation.wished,
            named: allocation.named,
            namespace,
            lifetime,
            endpoint: None,
        };
        let granted = self.ipam.allocate(request).await?;
        if granted.new {
            tracing::info!(address = %granted.lease.address, owner = %granted.lease.owner, "address leased");
        }
        Ok(granted.lease)
    }

    /// Takes an address back.
    pub(crate) async fn release(
        &self,
        owner: &Owner,
        address: Option<Ipv4Addr>,
    ) -> Result<(), CallError> {
        let _turn = self.turns.take(owner).await?;
        if let Some(Lease {
            address,
            endpoint: Some(endpoint),
            ..
        }) = self.ipam.lease_of(owner)
        {
            return Err(Refusal::new(format!(
                "{address} of {owner} is that of an interface that is attached ({}): detach it instead",
                endpoint.link
            ))
            .into());
        }
        self.let_go(owner, address, "address released").await
    }

    /// Undoes an attachment; `only_if_leaked`: unless it is in use.
    pub(crate) async fn detach(
        &self,
        owner: &Owner,
        only_if_leaked: bool,
    ) -> Result<(), CallError> {
        let _turn = self.turns.take(owner).await?;
        if only_if_leaked && self.leak_of(owner).await?.is_none() {
            return Ok(());
        }
        self.take_off(owner).await?;
        self.bury(owner).await
    }

    /// Undoes an attachment, in its owner's turn.
    async fn take_off(&self, owner: &Owner) -> Result<(), CallError> {
        match self.ipam.lease_of(owner) {
            Some(lease) if lease.endpoint.is_some() => self.unmake(&lease).await,
            // Of a lease that is lost an interface may be left.
            _ => self.delete(owner.link_name()).await,
        }
    }

    /// Deletes the interface of a lease's endpoint, and forgets that there is one.
    async fn unmake(&self, lease: &Lease) -> Result<(), CallError> {
        let Some(endpoint) = &lease.endpoint else {
            return Ok(());
        };
        // Written first: on a full disk nothing is changed, and what is begun is swept up.
        if endpoint.settled {
            let begun = Endpoint {
                settled: false,
                ..endpoint.clone()
            };
            self.ipam.set_endpoint(&lease.owner, Some(begun)).await?;
        }
        // Before the address can become another's.
        self.delete(endpoint.link.clone()).await?;
        self.forget(lease).await
    }

    async fn delete(&self, link: String) -> Result<(), CallError> {
        let deleted = ask(&self.commands, |reply| Command::UnmakeEndpoint {
            link,
            reply,
        });
        Ok(deleted.await??)
    }

    /// Forgets a lease's endpoint. An address that was leased along with it is released.
    async fn forget(&self, lease: &Lease) -> Result<(), CallError> {
        let along = lease.endpoint.as_ref().is_some_and(|it| it.leased_along);
        if along {
            return self.let_go(&lease.owner, None, "endpoint detached").await;
        }
        self.ipam.set_endpoint(&lease.owner, None).await?;
        tracing::info!(address = %lease.address, owner = %lease.owner, "endpoint detached");
        Ok(())
    }

    /// Undoes what an attachment that failed has begun, if it was that one. What cannot be undone now is
    /// swept up later.
    async fn undo(&self, granted: &Granted, undo: impl AsyncFnOnce() -> Result<(), CallError>) {
        if granted.new_endpoint
            && let Err(error) = undo().await
        {
            let owner = &granted.lease.owner;
            tracing::warn!(%owner, %error, "cannot undo an attachment at once: trying again in a moment");
        }
    }

    async fn let_go(
        &self,
        owner: &Owner,
        address: Option<Ipv4Addr>,
        event: &'static str,
    ) -> Result<(), CallError> {
        if let Some(lease) = self.ipam.release(owner, address).await? {
            tracing::info!(address = %lease.address, owner = %lease.owner, "{event}");
        }
        Ok(())
    }

    fn lifetime(&self) -> Lifetime {
        Lifetime::Life(self.life.to_string())
    }
}

/// Opens a namespace.
async fn open(path: String, caller: Option<i32>) -> Result<Namespace, CallError> {
    let opened = look(move || Namespace::open(&path, caller)).await?;
    Ok(opened.map_err(Refusal::because)?)
}

/// Looks at files, whose file systems may not answer: the look is given up then, its thread waits on.
async fn look<T: Send + 'static>(at: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let looking = tokio::task::spawn_blocking(at);
    match tokio::time::timeout(LOOK_DEADLINE, looking).await {
        Ok(looked) => looked.map_err(|error| Status::internal(error.to_string())),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "a file system does not answer within {} s: see which one hangs (dmesg, mount), then try again",
            LOOK_DEADLINE.as_secs()
        ))),
    }
}
