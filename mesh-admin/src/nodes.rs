//! `node`: what nodes are known by, and those that shall do nothing any more.

use anyhow::bail;
use clap::Subcommand;
use mesh_rest::node_credential::{
    CredentialState, MembershipState, NodeCredentialEntry, NodeCredentialList,
};

use crate::output::print_json;
use crate::removal::Remove;
use crate::segment;
use crate::table::{self, Table, ago};
use crate::unix_seconds;
use crate::{AdminError, Door};

/// `node`.
#[derive(Debug, Clone, Subcommand)]
pub enum Node {
    /// Show those there are, with their ids and what they are known by
    List {
        /// Print a document for a machine
        #[arg(long)]
        json: bool,
    },
    /// Take a node off for good: its credentials, its registration and its subnet
    Remove(Remove),
    /// Let a node do nothing any more; it comes back by a token that is made for it
    Revoke {
        /// Its hostname or id
        #[arg(value_name = "NAME|ID")]
        node: String,
    },
}

impl Node {
    /// Does it; `program` is what the operator called, for what is said to do next.
    ///
    /// # Errors
    ///
    /// Why not, in words for the operator.
    pub async fn run(self, door: &Door, program: &str) -> anyhow::Result<()> {
        let node = match self {
            Self::Remove(remove) => return remove.run(door, program).await,
            Self::List { json } => {
                let list = list(door).await?;
                return match json {
                    true => print_json(&list),
                    false => show(&list),
                };
            }
            Self::Revoke { node } => node,
        };
        let list = list(door).await?;
        let id = match find(&list, &node)? {
            Some(found) if found.credential == CredentialState::Revoked => {
                eprintln!("the node {} was revoked already", found.node_id);
                return Ok(());
            }
            Some(found) => found.node_id.as_str(),
            // What the database has and no list shows is still said by the control plane.
            None if mesh_credentials::name::is_id(&node) => &node,
            None => bail!("no node is called {node:?}; see {program} node list"),
        };
        let path = format!("/api/nodes/{}/revoke", segment(id)?);
        Ok(door.post_nothing(&path).await?)
    }
}

/// Every node with what it is known by.
pub(crate) async fn list(door: &Door) -> Result<NodeCredentialList, AdminError> {
    door.get("/api/node-credentials").await
}

fn show(list: &NodeCredentialList) -> anyhow::Result<()> {
    let now = unix_seconds();
    let mut table = Table::new([
        "ID",
        "NAME",
        "ADDRESS",
        "SUBNET",
        "STATE",
        "CREDENTIAL",
        "UNTIL",
        "SEEN",
    ]);
    for node in &list.nodes {
        let address = node.host_ip.map(|address| address.to_string());
        let subnet = node.subnet.map(|subnet| subnet.to_string());
        let seen = node.last_heartbeat.map(|at| ago(now, at));
        table.row([
            node.node_id.to_string(),
            node.hostname.clone().unwrap_or_default(),
            address.unwrap_or_default(),
            subnet.unwrap_or_default(),
            state(node.state).to_owned(),
            credential(node.credential).to_owned(),
            node.expires_at.map(table::moment).unwrap_or_default(),
            seen.unwrap_or_default(),
        ]);
    }
    table.print()
}

/// Where it is, in a word.
pub(crate) fn state(state: MembershipState) -> &'static str {
    match state {
        MembershipState::Up => "up",
        MembershipState::Down => "down",
        MembershipState::Stopped => "stopped",
        MembershipState::Left => "left",
        MembershipState::Unregistered => "not registered",
    }
}

fn credential(credential: CredentialState) -> &'static str {
    match credential {
        CredentialState::None => "none",
        CredentialState::Valid => "certificate",
        CredentialState::Expired => "expired",
        CredentialState::Untrusted => "of no authority",
        CredentialState::Own => "own certificate",
        CredentialState::Revoked => "revoked",
    }
}

/// The node with this id, or else the one with this name.
///
/// # Errors
///
/// Several have that name: which those are.
pub(crate) fn find<'a>(
    list: &'a NodeCredentialList,
    wanted: &str,
) -> anyhow::Result<Option<&'a NodeCredentialEntry>> {
    if let Some(node) = list.nodes.iter().find(|it| it.node_id.as_str() == wanted) {
        return Ok(Some(node));
    }
    let named = |it: &&NodeCredentialEntry| it.hostname.as_deref() == Some(wanted);
    let found: Vec<_> = list.nodes.iter().filter(named).collect();
    match found.as_slice() {
        [] => Ok(None),
        [node] => Ok(Some(node)),
        several => {
            let one = |node: &&NodeCredentialEntry| {
                let address = node.host_ip.map(|address| format!("{address}, "));
                let (address, state) = (address.unwrap_or_default(), state(node.state));
                format!("{} ({address}{state})", node.node_id)
            };
            let ids: Vec<String> = several.iter().map(one).collect();
            let count = several.len();
            bail!(
                "{count} nodes are called {wanted:?}; say which by its id: {}",
                ids.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: &str, state: MembershipState) -> NodeCredentialEntry {
        NodeCredentialEntry {
            node_id: id.to_owned().into(),
            hostname: Some(name.to_owned()),
            host_ip: Some("192.0.2.1".parse().unwrap()),
            subnet: None,
            state,
            last_heartbeat: None,
            credential: CredentialState::Valid,
            expires_at: None,
            issuer: None,
        }
    }

    #[test]
    fn an_id_is_meant_before_a_name_and_a_name_of_several_is_none() {
        let nodes = vec![
            node("a", "alpha", MembershipState::Up),
            node("b", "beta", MembershipState::Up),
            node("c", "beta", MembershipState::Down),
            // Whoever takes another's id for a name is not taken for it.
            node("d", "a", MembershipState::Up),
        ];
        let list = NodeCredentialList { nodes };
        let id = |wanted| {
            find(&list, wanted)
                .unwrap()
                .map(|it| it.node_id.to_string())
        };
        assert_eq!(id("alpha").as_deref(), Some("a"));
        assert_eq!(id("a").as_deref(), Some("a"));
        assert_eq!(id("gamma"), None);
        let why = find(&list, "beta").unwrap_err().to_string();
        for part in ["2 nodes", "b (192.0.2.1, up)", "c (192.0.2.1, down)"] {
            assert!(why.contains(part), "{why}");
        }
    }
}
