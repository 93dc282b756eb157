//! What is not as it should be in the cluster, as far as the control plane sees it: pure.

use std::collections::BTreeMap;

use mesh_problems::catalog::cluster::{
    CLUSTER_OPEN, HOST_CLONED, NODES_SILENT, NODES_STOPPED, SUBNETS_EXHAUSTED, SUBNETS_OF_DEPARTED,
    SUBNETS_SCARCE, VERSIONS_DIFFER,
};
use mesh_problems::{Kind, Problem};
use mesh_rest::status::Status;

use super::node::Node;

/// So many of those that a problem counts are named.
const NAMED: usize = 5;

/// Subnets are scarce when less than one in this many is free.
const SCARCE: u32 = 10;

/// A node, and what is known of it beside its entry.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The node.
    pub node: &'a Node,
    /// Whether its heartbeats arrive, by now.
    pub status: Status,
    /// Unix seconds of its last heartbeat.
    pub last_heartbeat: i64,
    /// Unix seconds at which a copy of its host was held off last, while that goes on.
    pub copy_held_off_at: Option<i64>,
    /// The version of its runtime, where it told.
    pub version: Option<&'a str>,
}

/// The cluster, as the control plane sees it.
#[derive(Debug, Clone, Default)]
pub struct View<'a> {
    /// Its nodes.
    pub nodes: Vec<Seen<'a>>,
    /// Why somebody is let in without credentials.
    pub insecure: Option<&'a str>,
    /// How many subnets there are, and how many are free.
    pub subnets: (u32, u32),
}

/// A problem, and since when it is there where that is known, in Unix seconds.
pub type Dated = (Problem, Option<i64>);

/// What is not as it should be. One problem for each kind, however many nodes have it.
pub fn problems(view: &View<'_>) -> Vec<Dated> {
    let mut problems = Vec::new();
    let mut of_nodes =
        |kind: &'static Kind, what: &str, having: &dyn Fn(&Seen<'_>) -> Option<i64>| {
            let having: Vec<(&Seen<'_>, i64)> = view
                .nodes
                .iter()
                .filter_map(|seen| Some((seen, having(seen)?)))
                .collect();
            let Some(since) = having.iter().map(|(_, since)| *since).min() else {
                return;
            };
            let names = having.iter().map(|(seen, _)| name(seen.node));
            let observed = format!("{} {what}", counted(names.collect()));
            problems.push((Problem::new(kind, observed), Some(since)));
        };
    of_nodes(
        &NODES_SILENT,
        "did not beat within the node timeout",
        &|seen| {
            (seen.status == Status::Down && !seen.node.deregistered).then_some(seen.last_heartbeat)
        },
    );
    of_nodes(
        &HOST_CLONED,
        "beats, and another host comes with its identity",
        &|seen| seen.copy_held_off_at,
    );
    of_nodes(
        &NODES_STOPPED,
        "down because the agent was stopped",
        &|seen| {
            let stopped = seen.status == Status::Down && seen.node.deregistered && !seen.node.left;
            stopped.then_some(seen.last_heartbeat)
        },
    );
    of_nodes(&SUBNETS_OF_DEPARTED, "left for good", &|seen| {
        seen.node.left.then_some(seen.last_heartbeat)
    });
    if let Some(why) = view.insecure {
        problems.push((Problem::new(&CLUSTER_OPEN, why), None));
    }
    problems.extend(pool(view.subnets).map(|problem| (problem, None)));
    problems.extend(versions(&view.nodes).map(|problem| (problem, None)));
    problems
}

fn name(node: &Node) -> String {
    format!("{} ({})", node.hostname, node.subnet)
}

/// How many there are, and the first of them.
fn counted(names: Vec<String>) -> String {
    let (count, more) = (names.len(), names.len().saturating_sub(NAMED));
    let mut listed: Vec<String> = names.into_iter().take(NAMED).collect();
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    let listed = listed.join(", ");
    match count {
        1 => format!("1 node: {listed}:"),
        _ => format!("{count} nodes: {listed}:"),
    }
}

fn pool((total, free): (u32, u32)) -> Option<Problem> {
    let observed = format!("{free} of {total} subnets are free");
    match free {
        0 => Some(Problem::new(&SUBNETS_EXHAUSTED, observed)),
        _ if free < total / SCARCE => Some(Problem::new(&SUBNETS_SCARCE, observed)),
        _ => None,
    }
}

fn versions(nodes: &[Seen<'_>]) -> Option<Problem> {
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    let up = nodes.iter().filter(|seen| seen.status == Status::Up);
    for version in up.filter_map(|seen| seen.version) {
        *versions.entry(version).or_default() += 1;
    }
    if versions.len() < 2 {
        return None;
    }
    let mut counts: Vec<_> = versions.into_iter().collect();
    counts.sort_by_key(|(version, count)| (std::cmp::Reverse(*count), *version));
    let named = counts.iter().take(NAMED);
    let words: Vec<String> = named
        .map(|(version, count)| format!("{version} on {count}"))
        .collect();
    Some(Problem::new(&VERSIONS_DIFFER, words.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use mesh_rest::node_id::NodeId;

    use super::*;

    fn node(third: u8) -> Node {
        Node {
            node_id: NodeId::from(format!("node-{third}")),
            hostname: format!("host{third}"),
            host_ip: Ipv4Addr::new(192, 0, 2, third),
            subnet: format!("10.42.{third}.0/24").parse().unwrap(),
            cpu_cores: None,
            ram_mb: None,
            overlay_mtu: None,
            status: Status::Up,
            deregistered: false,
            left: false,
            registered_at: 1,
            last_heartbeat: 1,
        }
    }

    fn seen(node: &Node) -> Seen<'_> {
        Seen {
            node,
            status: Status::Up,
            last_heartbeat: 1000,
            copy_held_off_at: None,
            version: Some("0.1.0"),
        }
    }

    fn codes(view: &View<'_>) -> Vec<&'static str> {
        let problems = problems(view);
        problems
            .iter()
            .map(|(problem, _)| problem.kind.code)
            .collect()
    }

    #[test]
    fn a_cluster_that_is_fine_has_no_problem() {
        let nodes: Vec<Node> = (1..4).map(node).collect();
        let view = View {
            nodes: nodes.iter().map(seen).collect(),
            insecure: None,
            subnets: (255, 252),
        };
        assert_eq!(problems(&view), []);
    }

    #[test]
    fn each_ailment_is_one_problem_with_the_names_of_those_that_have_it() {
        let mut nodes: Vec<Node> = (1..12).map(node).collect();
        nodes[8].deregistered = true;
        nodes[9].deregistered = true;
        nodes[9].left = true;
        let mut all: Vec<_> = nodes.iter().map(seen).collect();
        for (position, seen) in all.iter_mut().enumerate().take(10) {
            seen.status = Status::Down;
            seen.last_heartbeat = 500 + i64::try_from(position).unwrap();
        }
        all[10].copy_held_off_at = Some(990);
        let view = View {
            nodes: all,
            insecure: Some("it was started with --insecure"),
            subnets: (255, 0),
        };
        let found = problems(&view);
        let expected = [
            "nodes-silent",
            "host-cloned",
            "nodes-stopped",
            "subnets-of-departed",
            "cluster-open",
            "subnets-exhausted",
        ];
        assert_eq!(codes(&view), expected);
        let (silent, since) = &found[0];
        let words = "8 nodes: host1 (10.42.1.0/24), host2 (10.42.2.0/24), host3 (10.42.3.0/24), host4 (10.42.4.0/24), \
                     host5 (10.42.5.0/24), 3 more: did not beat within the node timeout";
        assert_eq!((silent.observed.as_str(), *since), (words, Some(500)));
        assert!(
            found[2].0.observed.starts_with("1 node: host9 "),
            "{found:?}"
        );
    }

    #[test]
    fn versions_count_where_nodes_are_up_and_few_subnets_are_told_before_there_are_none() {
        let nodes: Vec<Node> = (1..4).map(node).collect();
        let mut all: Vec<_> = nodes.iter().map(seen).collect();
        all[0].version = Some("0.2.0");
        let mut view = View {
            nodes: all,
            insecure: None,
            subnets: (255, 25),
        };
        assert_eq!(codes(&view), ["versions-differ"]);
        assert_eq!(problems(&view)[0].0.observed, "0.1.0 on 2, 0.2.0 on 1");
        view.nodes[0].version = None;
        view.subnets = (255, 24);
        assert_eq!(codes(&view), ["subnets-scarce"]);
    }
}
