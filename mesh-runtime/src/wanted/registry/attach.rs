//! Attaching a container: the lease is written, the interface made and guarded, and what fails half way undone.

use mesh_ipam::{Endpoint, Lease, NetworkNamespace, Owner, Request};

use super::{CallError, Registry, open, publish::check_ports};
use crate::{
    api::{
        ask::ask,
        command::{Command, Refusal},
    },
    observed::namespace::Namespace,
    wanted::attachment::{Attachment, Inside},
};

/// A container that has its interface.
#[derive(Clone, Debug)]
pub(crate) struct AttachedContainer {
    pub(crate) lease: Lease,
    /// What is left to do inside.
    pub(crate) inside: Inside,
    /// Whether this call made the interface.
    pub(crate) new: bool,
}

impl Registry {
    /// Makes a container's interface, with an address, and says what is left to do inside.
    pub(crate) async fn attach(
        &self,
        attachment: Attachment,
    ) -> Result<AttachedContainer, CallError> {
        let _turn = self.turns.take(&attachment.owner).await?;
        self.bury(&attachment.owner).await?;
        let namespace = match attachment.namespace.clone() {
            Some(path) => Some(open(path, attachment.caller).await?),
            None => None,
        };
        self.attach_in(attachment, namespace).await
    }

    /// Makes the interface, in a namespace that is open or for its engine to move, in its owner's turn.
    pub(super) async fn attach_in(
        &self,
        attachment: Attachment,
        namespace: Option<Namespace>,
    ) -> Result<AttachedContainer, CallError> {
        let named = namespace.as_ref().map(|it| it.named().clone());
        let ground = ask(&self.commands, |reply| Command::Ground { reply }).await??;
        let known = self.ipam.lease_of(&attachment.owner);
        if let Some(lease) = &known {
            attachment
                .check_same(lease, named.as_ref())
                .map_err(Refusal::because)?;
        }
        let plan = attachment
            .plan(&ground, named.as_ref())
            .map_err(Refusal::because)?;
        let is_new = known.as_ref().is_none_or(|lease| lease.endpoint.is_none());
        if is_new && !attachment.ports_held {
            check_ports(plan.published.clone()).await?;
        }
        // What the lease itself is bound to stays; the endpoint is bound to its namespace.
        let (lifetime, bound_to) = match known {
            Some(lease) => (lease.lifetime, lease.namespace),
            None => (self.lifetime(), None),
        };
        let granted = self
            .ipam
            .allocate(Request {
                owner: attachment.owner.clone(),
                wished: attachment.wished,
                named: attachment.named.clone(),
                namespace: bound_to,
                lifetime,
                endpoint: Some(plan),
            })
            .await?;
        let lease = &granted.lease;
        if !ground.subnet.contains(&lease.address) {
            self.undo(&granted, async || self.forget(lease).await).await;
            return Err(Refusal::for_now(format!(
                "{} is not of {}: this node has got another subnet just now, try again",
                lease.address, ground.subnet
            ))
            .into());
        }
        let made = ask(&self.commands, |reply| Command::MakeEndpoint {
            lease: Box::new(lease.clone()),
            namespace,
            reply,
        });
        let made = match made.await {
            Ok(Ok(made)) if made.guarded => made,
            Ok(Ok(made)) => {
                self.undo(&granted, async || self.unmake(lease).await).await;
                if made.new && !granted.new_endpoint {
                    // The endpoint was there before this call, its interface was not.
                    self.delete(lease.owner.link_name()).await?;
                }
                return Err(Refusal::for_now(
                    "programs and rules do not know the new interface yet, and it may not send without: the \
                     host is busy, try again",
                )
                .into());
            }
            // Nothing was made.
            Ok(Err(refusal)) => {
                self.undo(&granted, async || self.forget(lease).await).await;
                return Err(refusal.into());
            }
            // It may have been.
            Err(status) => {
                self.undo(&granted, async || self.unmake(lease).await).await;
                return Err(status.into());
            }
        };
        match self.finish(lease, named).await {
            Ok(lease) => {
                if made.new {
                    let link = lease.endpoint.as_ref().map(|endpoint| &endpoint.link);
                    tracing::info!(name: "endpoint-attached", address = %lease.address, owner = %lease.owner, link, "endpoint attached");
                    self.tell_names(&lease.owner);
                }
                Ok(AttachedContainer {
                    inside: Inside::of(&lease, &ground),
                    lease,
                    new: made.new,
                })
            }
            Err(error) => {
                self.undo(&granted, async || self.unmake(lease).await).await;
                Err(error)
            }
        }
    }

    /// Says of the first container of a network that it reaches those of others.
    fn tell_names(&self, owner: &Owner) {
        let leases = self.ipam.leases();
        let mut others = leases.iter().filter(|lease| lease.owner != *owner);
        let is_first = !others
            .clone()
            .any(|it| it.owner.network() == owner.network());
        if let (true, Some(other)) = (is_first, others.next()) {
            let (network, other) = (owner.network(), other.owner.network());
            tracing::info!(name: "two-names-one-mesh",
                network,
                other,
                "two names of one mesh: containers of both reach each other"
            );
        }
    }

    /// Lets an endpoint send that is guarded now, and notes that all of it is there, and in which namespace: by the
    /// same path there may be another than before.
    async fn finish(
        &self,
        lease: &Lease,
        namespace: Option<NetworkNamespace>,
    ) -> Result<Lease, CallError> {
        let Some(endpoint) = lease.endpoint.clone() else {
            return Ok(lease.clone());
        };
        let link = endpoint.link.clone();
        ask(&self.commands, |reply| Command::RaiseEndpoint {
            link,
            reply,
        })
        .await??;
        let settled = Endpoint {
            settled: true,
            namespace,
            ..endpoint
        };
        Ok(self.ipam.set_endpoint(&lease.owner, Some(settled)).await?)
    }
}
