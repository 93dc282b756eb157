//! `node remove`: takes a node off for good.
//!
//! Three steps, each of which is success when it is repeated: its credentials are revoked, so that it does not come back; its
//! registration is ended, so that it counts as down; and its subnet is released, by which the control plane forgets it. In this
//! order nothing is free that somebody still uses.

use anyhow::{Context as _, bail};
use clap::Args;
use ipnet::Ipv4Net;
use mesh_rest::node_credential::{CredentialState, MembershipState, NodeCredentialEntry};
use mesh_rest::problem_kind::Kind;
use mesh_rest::release::{Release, Released};
use serde::Serialize;

use crate::nodes::{find, list, state};
use crate::output::{print_json, print_line};
use crate::{Door, segment};

/// `node remove`.
#[derive(Debug, Clone, Args)]
pub struct Remove {
    /// Its hostname or id
    #[arg(value_name = "NAME|ID")]
    pub node: String,
    /// Also while it is up: its containers cannot be reached from other nodes from then on
    #[arg(long)]
    pub force: bool,
    /// Print a document for a machine
    #[arg(long)]
    pub json: bool,
}

/// What was done, as a document. Fields are added to it, and never taken away or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// As it was called.
    pub node: String,
    /// Its id; `None`: there was no such node, and nothing to do.
    pub node_id: Option<String>,
    /// Its subnet, which is free again; `None`: it had none.
    pub subnet: Option<Ipv4Net>,
    /// What was done, in this order.
    pub steps: Vec<Step>,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Its certificate is worth nothing any more.
    Revoke,
    /// It counts as down.
    Deregister,
    /// Its subnet is free, and the node forgotten.
    Release,
}

impl Step {
    fn in_words(self, node: &NodeCredentialEntry) -> String {
        match self {
            Self::Revoke => "its credentials are revoked".to_owned(),
            Self::Deregister => "its registration has ended".to_owned(),
            Self::Release => match node.subnet {
                Some(subnet) => format!("its subnet {subnet} is free again"),
                None => "its subnet is free again".to_owned(),
            },
        }
    }
}

/// What there is to do with a node: nothing twice.
fn steps(node: &NodeCredentialEntry) -> Vec<Step> {
    let mut steps = Vec::new();
    if !matches!(
        node.credential,
        CredentialState::None | CredentialState::Revoked
    ) {
        steps.push(Step::Revoke);
    }
    if matches!(node.state, MembershipState::Up | MembershipState::Down) {
        steps.push(Step::Deregister);
    }
    if node.subnet.is_some() {
        steps.push(Step::Release);
    }
    steps
}

impl Remove {
    pub(crate) async fn run(self, door: &Door, program: &str) -> anyhow::Result<()> {
        let list = list(door).await?;
        let Some(node) = find(&list, &self.node)? else {
            eprintln!(
                "no node is called {:?}, and nothing was done; see {program} node list",
                self.node
            );
            return self.tell(None, Vec::new());
        };
        if node.state == MembershipState::Up && !self.force {
            bail!(
                "the node {} ({}) is up: stop its agent first, or have it leave (meshctl leave, on the node); --force takes it off \
                 all the same, and its containers cannot be reached from other nodes from then on",
                self.node,
                node.node_id
            );
        }
        let steps = steps(node);
        if steps.is_empty() {
            eprintln!(
                "the node {} ({}) is {} already",
                self.node,
                node.node_id,
                state(node.state)
            );
        }
        for step in &steps {
            take(door, *step, node).await?;
            if !self.json {
                print_line(&format!(
                    "{} ({}): {}",
                    self.node,
                    node.node_id,
                    step.in_words(node)
                ))?;
            }
        }
        if node.state == MembershipState::Up && node.credential == CredentialState::None {
            eprintln!(
                "it has no credentials, and registers again by itself as long as its agent runs: stop that"
            );
        }
        self.tell(Some(node), steps)
    }

    fn tell(&self, node: Option<&NodeCredentialEntry>, steps: Vec<Step>) -> anyhow::Result<()> {
        match self.json {
            true => print_json(&Removed {
                node: self.node.clone(),
                node_id: node.map(|node| node.node_id.to_string()),
                subnet: node.and_then(|node| node.subnet),
                steps,
            }),
            false => Ok(()),
        }
    }
}

async fn take(door: &Door, step: Step, node: &NodeCredentialEntry) -> anyhow::Result<()> {
    let id = segment(node.node_id.as_str())?;
    let (done, gone) = match step {
        Step::Revoke => (
            door.post_nothing(&format!("/api/nodes/{id}/revoke")).await,
            Kind::NoSuchCredential,
        ),
        Step::Deregister => (
            door.post_nothing(&format!("/api/nodes/{id}/deregister"))
                .await,
            Kind::UnknownNode,
        ),
        Step::Release => {
            let Some(subnet) = node.subnet else {
                return Ok(());
            };
            let released = door
                .post::<Released>("/api/subnets/release", &Release { subnet })
                .await;
            (released.map(drop), Kind::NotLeased)
        }
    };
    match done {
        // Somebody else was faster.
        Err(error) if error.kind() == Some(gone) => Ok(()),
        done => done.with_context(|| match step {
            Step::Revoke => "nothing was done".to_owned(),
            Step::Deregister => {
                "its credentials are revoked, and it is still registered; repeat this".to_owned()
            }
            Step::Release => "it is down, and keeps its subnet; repeat this".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: MembershipState, credential: CredentialState) -> NodeCredentialEntry {
        NodeCredentialEntry {
            node_id: "a".to_owned().into(),
            hostname: Some("alpha".to_owned()),
            host_ip: None,
            subnet: (state != MembershipState::Unregistered)
                .then(|| "10.42.1.0/24".parse().unwrap()),
            state,
            last_heartbeat: None,
            credential,
            expires_at: None,
            issuer: None,
        }
    }

    #[test]
    fn what_was_done_before_is_not_done_again_and_a_subnet_is_free_last() {
        use CredentialState as C;
        use MembershipState as M;
        use Step::{Deregister, Release, Revoke};
        for (state, credential, expected) in [
            (M::Up, C::Valid, &[Revoke, Deregister, Release][..]),
            (M::Down, C::Revoked, &[Deregister, Release]),
            (M::Stopped, C::None, &[Release]),
            (M::Left, C::Expired, &[Revoke, Release]),
            (M::Unregistered, C::Own, &[Revoke]),
            (M::Unregistered, C::Revoked, &[]),
        ] {
            let steps = steps(&node(state, credential));
            assert_eq!(steps, expected, "{state:?} {credential:?}");
        }
    }
}
