//! `meshctl leave`: takes this node off its mesh for good.

use anyhow::{Context as _, bail};
use mesh_client::{AgentClient, Inspector, Maintenance};
use serde::Serialize;

use crate::{
    drain::{self, Here},
    output::{now, say, say_json},
    place::Place,
};

/// Takes this node off its mesh for good: the control plane may lease its subnet to another node.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Also while containers are here, which nobody on other nodes reaches from then on.
    #[arg(long)]
    force: bool,
    /// Let this host join again.
    #[arg(long, conflicts_with = "force")]
    undo: bool,
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// What became of it, as a document. Fields are added to it, and never taken away or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Left {
    /// Whether this host is no node of its mesh.
    left: bool,
    /// What the control plane called the node; `None`: it had left before.
    node_id: Option<String>,
    /// The subnet that it had.
    subnet: Option<String>,
    /// The containers that are still here.
    here: Vec<Here>,
    /// What was removed on this host, a line each.
    removed: Vec<String>,
    /// What was left on this host, with the reason.
    kept: Vec<String>,
}

/// Does it.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<()> {
    let left = match options.undo {
        true => join_again(place).await?,
        false => leave(place, options.force).await?,
    };
    match options.json {
        true => say_json(&left),
        false => say(text(&left, now())),
    }
}

async fn join_again(place: &Place) -> anyhow::Result<Left> {
    let mut agent = AgentClient::connect_to_change(&place.agent_socket).await?;
    agent.join_again().await?;
    Ok(Left::default())
}

async fn leave(place: &Place, force: bool) -> anyhow::Result<Left> {
    let looked = drain::here(place).await;
    let here = match (looked, force) {
        (Ok(here), _) => here,
        (Err(_), true) => Vec::new(),
        (Err(error), false) => {
            return Err(error.context(
                "it cannot be told whether containers are still here, and nothing was done (--force leaves all the same)",
            ));
        }
    };
    if !here.is_empty() && !force {
        bail!(
            "containers are still here, and nothing was done; stop them (meshctl drain keeps new ones away), or leave all the same \
             (--force):\n{}",
            drain::table(&here, now())
        );
    }
    let mut agent = AgentClient::connect_to_change(&place.agent_socket).await?;
    let gone = agent.leave().await?;
    // What the runtime has may be of before: the agent knows it no more then.
    let forgotten = forget(place).await.context(
        "the node has left, but the runtime of this host still has what was made for it: repeat this",
    )?;
    let said = |text: String| (!text.is_empty()).then_some(text);
    Ok(Left {
        left: true,
        node_id: said(gone.node_id),
        subnet: said(gone.subnet).or(forgotten.subnet),
        here,
        removed: forgotten.removed,
        kept: forgotten.kept,
    })
}

#[derive(Default)]
struct Forgotten {
    subnet: Option<String>,
    removed: Vec<String>,
    kept: Vec<String>,
}

/// Has the runtime forget the subnet that it has, if it has one.
async fn forget(place: &Place) -> anyhow::Result<Forgotten> {
    let status = Inspector::connect(&place.socket).await?.status().await?;
    if status.subnet.is_empty() {
        return Ok(Forgotten::default());
    }
    let mut maintenance = Maintenance::connect(&place.socket).await?;
    let forgotten = maintenance.forget(&status.subnet).await?;
    Ok(Forgotten {
        subnet: Some(status.subnet),
        removed: forgotten.removed,
        kept: forgotten.kept,
    })
}

fn text(left: &Left, now: u64) -> String {
    if !left.left {
        return "this host joins again: see meshctl status".to_owned();
    }
    let mut lines = vec![match (&left.node_id, &left.subnet) {
        (Some(id), Some(subnet)) => {
            format!("the node {id} has left the mesh; its subnet {subnet} may become another's")
        }
        _ => "this host has left the mesh".to_owned(),
    }];
    lines.extend(left.removed.iter().map(|it| format!("  done    {it}")));
    lines.extend(left.kept.iter().map(|it| format!("  left    {it}")));
    if !left.here.is_empty() {
        lines.push("containers that nobody on other nodes reaches any more:".to_owned());
        lines.push(drain::table(&left.here, now));
    }
    lines.push(
        "left to do by hand: stop agent and runtime for good, then remove the rest (quilt-runtime --cleanup);\nto have the subnet leased to another node at once, release it (meshctl node remove, where \
         the control plane is asked);\nto join again instead: meshctl leave --undo"
            .to_owned(),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::held;

    fn some() -> Left {
        Left {
            left: true,
            node_id: Some("4f1c".to_owned()),
            subnet: Some("10.42.1.0/24".to_owned()),
            here: Vec::new(),
            removed: vec!["delete vxlan100".to_owned()],
            kept: vec!["quilt0 has ports (veth1): stop their containers first".to_owned()],
        }
    }

    #[test]
    fn who_left_is_told_what_is_done_and_what_is_left_to_do() {
        let text = text(&some(), 0);
        for words in [
            "4f1c has left",
            "done    delete vxlan100",
            "left    quilt0",
            "by hand",
            "--undo",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("leave", &some());
    }
}
