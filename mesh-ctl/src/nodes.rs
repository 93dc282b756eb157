//! `meshctl nodes`: the nodes of the cluster, and whether they are fine.

use std::collections::HashMap;

use mesh_admin::choice::DoorOptions;
use mesh_problems::Finding;
use mesh_rest::{
    findings::ClusterFindings, node::NodeEntry, node_list::NodesAnswer, status::Status,
};
use serde::Serialize;

use crate::{
    Verdict, control_door, findings,
    output::{Table, age, now, say, say_json},
    place::Place,
};

/// The nodes of the cluster, and whether they are fine, as the control plane sees them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    door: DoorOptions,
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// Prints them.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    let door = control_door::open(place, &options.door).await?;
    let (listed, told) = tokio::join!(
        door.get::<NodesAnswer<'static>>("/api/nodes"),
        door.get::<ClusterFindings<'static>>("/api/findings")
    );
    let nodes = nodes(listed?.nodes, told?);
    match options.json {
        true => say_json(&nodes)?,
        false => say(text(&nodes, now()))?,
    }
    Ok(match nodes.healthy {
        true => Verdict::Fine,
        false => Verdict::Wrong,
    })
}

/// The nodes, as a document. Fields are added to it, and never taken away or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Nodes {
    /// Whether all are up but those that left for good, and no finding is an error.
    healthy: bool,
    /// By name, and those of one name by id.
    nodes: Vec<Node>,
    /// What the control plane sees itself, the gravest first.
    findings: Vec<Finding>,
    /// How many more nodes report something than there is room for in its answer.
    nodes_left_out: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Node {
    name: String,
    id: String,
    /// On the underlay.
    address: String,
    subnet: String,
    /// `up`; `down`: it is silent; `stopped`: its agent was stopped, or an operator took it down; `left`: for good.
    state: String,
    /// In Unix seconds.
    last_heartbeat: Option<i64>,
    /// That of its runtime; `None`: it did not tell.
    version: Option<String>,
    /// What it reports, the gravest first.
    findings: Vec<Finding>,
}

fn nodes(listed: Vec<NodeEntry<'static>>, told: ClusterFindings<'static>) -> Nodes {
    let mut reported: HashMap<String, Vec<Finding>> = told
        .nodes
        .into_iter()
        .map(|node| (node.node_id.to_string(), node.findings))
        .collect();
    let mut versions: HashMap<String, String> = told
        .versions
        .into_iter()
        .map(|node| (node.node_id.to_string(), node.version.into_owned()))
        .collect();
    let mut nodes: Vec<Node> = listed
        .into_iter()
        .map(|entry| Node {
            state: state(&entry),
            version: versions.remove(&*entry.node_id),
            findings: reported.remove(&*entry.node_id).unwrap_or_default(),
            name: entry.hostname.into_owned(),
            id: entry.node_id.into_owned(),
            address: entry.host_ip.into_owned(),
            subnet: entry.subnet.into_owned(),
            last_heartbeat: entry.last_heartbeat,
        })
        .collect();
    nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let is_fine = |node: &Node| {
        (node.state == UP || node.state == LEFT) && !findings::is_wrong(&node.findings)
    };
    Nodes {
        healthy: nodes.iter().all(is_fine) && !findings::is_wrong(&told.findings),
        nodes,
        findings: told.findings,
        nodes_left_out: told.nodes_left_out,
    }
}

const UP: &str = "up";
const LEFT: &str = "left";

fn state(entry: &NodeEntry<'_>) -> String {
    match entry.status() {
        _ if entry.left => LEFT.to_owned(),
        _ if entry.deregistered => "stopped".to_owned(),
        Some(Status::Up) => UP.to_owned(),
        Some(Status::Down) => "down".to_owned(),
        // Of a control plane of a later version.
        None => entry.status.to_string(),
    }
}

fn text(nodes: &Nodes, now: u64) -> String {
    let mut table = Table::new([
        "NAME",
        "ADDRESS",
        "SUBNET",
        "STATE",
        "LAST-SEEN",
        "VERSION",
        "FINDINGS",
    ]);
    for node in &nodes.nodes {
        let seen = node
            .last_heartbeat
            .map(|at| now.saturating_sub(u64::try_from(at).unwrap_or_default()));
        table.row([
            node.name.clone(),
            node.address.clone(),
            node.subnet.clone(),
            node.state.clone(),
            seen.map_or_else(|| "never".to_owned(), |seen| format!("{} ago", age(seen))),
            node.version.clone().unwrap_or_else(|| "unknown".to_owned()),
            findings::count(&node.findings),
        ]);
    }
    let mut parts = vec![table.text()];
    if !nodes.findings.is_empty() {
        parts.push(findings::text(&nodes.findings, now));
    }
    if nodes.nodes_left_out > 0 {
        parts.push(format!(
            "{} more nodes report something for which there was no room: see meshctl status on them",
            nodes.nodes_left_out
        ));
    }
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use mesh_problems::{Problem, catalog::dataplane::FOREIGN_ROUTE};
    use mesh_rest::findings::{NodeFindings, NodeVersion};

    use super::*;
    use crate::output::held;

    fn entry(name: &'static str, id: &'static str, status: &'static str) -> NodeEntry<'static> {
        NodeEntry {
            node_id: id.into(),
            hostname: name.into(),
            host_ip: "192.0.2.11".into(),
            subnet: "10.42.1.0/24".into(),
            status: status.into(),
            last_heartbeat: Some(1_800_000_000),
            ..NodeEntry::default()
        }
    }

    fn some() -> Nodes {
        let left = NodeEntry {
            left: true,
            last_heartbeat: None,
            ..entry("gamma", "c", "down")
        };
        let wrong = Problem::new(&FOREIGN_ROUTE, "the route to 10.42.2.0/24");
        let told = ClusterFindings {
            nodes: vec![NodeFindings {
                node_id: Cow::Owned("b".to_owned().into()),
                hostname: "beta".into(),
                report_age_ms: 1,
                findings: vec![Finding::of(&wrong, 1_800_000_000)],
            }],
            versions: vec![NodeVersion {
                node_id: Cow::Owned("a".to_owned().into()),
                version: "0.1.0".into(),
            }],
            ..ClusterFindings::default()
        };
        let listed = vec![left, entry("beta", "b", "up"), entry("alpha", "a", "up")];
        nodes(listed, told)
    }

    #[test]
    fn what_one_node_reports_makes_the_cluster_wrong_and_one_that_left_does_not() {
        let mut told = some();
        assert!(!told.healthy);
        let text = text(&told, 1_800_000_060);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[1].join(" "),
            "alpha 192.0.2.11 10.42.1.0/24 up 1 min ago 0.1.0 none"
        );
        assert_eq!(rows[2][7..].join(" "), "unknown 1 error");
        assert_eq!(rows[3][3..5], ["left", "never"]);
        told.nodes.remove(1);
        let entries = vec![entry("alpha", "a", "up"), entry("beta", "b", "down")];
        assert!(nodes(entries[..1].to_vec(), ClusterFindings::default()).healthy);
        assert!(!nodes(entries, ClusterFindings::default()).healthy);
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("nodes", &some());
    }
}
