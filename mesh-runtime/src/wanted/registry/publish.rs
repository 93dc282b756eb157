//! The ports of the host by which an attached container is reached, where they are said apart from it.

use mesh_ipam::{Endpoint, Owner, Published};
use tonic::Status;

use super::{CallError, Registry, look};
use crate::{
    api::{
        ask::ask,
        command::{Command, Refusal},
    },
    observed::listeners,
    wanted::attachment::check_vxlan,
};

impl Registry {
    /// Makes these the ports of an attached container.
    pub(crate) async fn publish(
        &self,
        owner: &Owner,
        published: Vec<Published>,
    ) -> Result<(), CallError> {
        let _turn = self.turns.take(owner).await?;
        self.bury(owner).await?;
        let endpoint = self.ipam.lease_of(owner).and_then(|lease| lease.endpoint);
        let Some(endpoint) = endpoint.filter(|endpoint| endpoint.settled) else {
            if published.is_empty() {
                return Ok(());
            }
            return Err(Refusal::new(format!(
                "{owner} has no interface to be reached by: attach it first"
            ))
            .into());
        };
        if endpoint.published == published {
            return Ok(());
        }
        let ground = ask(&self.commands, |reply| Command::Ground { reply }).await??;
        check_vxlan(&published, ground.vxlan_port).map_err(Refusal::because)?;
        let is_new = |range: &Published| !endpoint.published.contains(range);
        check_ports(published.iter().filter(|it| is_new(it)).cloned().collect()).await?;
        let ports: Vec<String> = published.iter().map(Published::to_string).collect();
        let changed = Endpoint {
            published,
            ..endpoint
        };
        let lease = self.ipam.set_endpoint(owner, Some(changed)).await?;
        // Answered once the rules are written.
        ask(&self.commands, |reply| Command::GetStatus { reply }).await?;
        let ports = ports.join(", ");
        tracing::info!(name: "ports-published", address = %lease.address, %owner, ports, "ports published");
        Ok(())
    }
}

/// Refuses ports that a process of this host has.
pub(super) async fn check_ports(published: Vec<Published>) -> Result<(), CallError> {
    if published.is_empty() {
        return Ok(());
    }
    let found = look(listeners::listeners)
        .await?
        .map_err(|error| Status::internal(format!("cannot tell which ports are taken: {error}")))?;
    Ok(listeners::check(&published, &found).map_err(Refusal::because)?)
}
