//! What the answers of all nodes say of each pair, both ways. Pure.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use mesh_problems::{
    Kind, Severity,
    catalog::check::{CHECK_NOT_ANSWERED, CHECK_NOT_ASKED, PEER_UNKNOWN},
};
use mesh_rest::check::{CheckState, NodeChecked, WayChecked};

use super::way::{Outcome, Row, Test, rows};
use crate::output::age;

/// Whoever was heard this recently, in milliseconds, was heard while the check was made.
const JUST_NOW_MS: u64 = 5_000;

/// Whoever was heard longer ago than this was not.
const LONG_AGO_MS: u64 = 15_000;

/// Puts together what several replicas say of one check: each knows what the nodes that report to it answered.
pub(super) fn together(mut states: Vec<CheckState>) -> Option<CheckState> {
    let mut all = states.pop()?;
    for state in states {
        for node in state.nodes {
            match all.nodes.iter_mut().find(|it| it.node_id == node.node_id) {
                Some(known) if known.answer.is_none() => known.answer = node.answer,
                Some(_) => {}
                None => all.nodes.push(node),
            }
        }
    }
    all.nodes.sort_by_key(|node| node.subnet);
    Some(all)
}

/// Who has not answered.
pub(super) fn silent(state: &CheckState) -> impl Iterator<Item = &NodeChecked> {
    state.nodes.iter().filter(|node| node.answer.is_none())
}

/// Every row there is: of nodes that say nothing of any way one, of every way from another one those of its tests.
pub(super) fn all_rows(state: &CheckState) -> Vec<Row> {
    let names = names(state);
    let name = |subnet: &Ipv4Net| {
        let known = names.get(subnet).cloned();
        known.unwrap_or_else(|| subnet.to_string())
    };
    let ways: BTreeMap<(Ipv4Net, Ipv4Net), &WayChecked> = state
        .nodes
        .iter()
        .flat_map(|node| {
            let answer = node.answer.iter();
            let ways = answer.flat_map(|answer| &answer.peers);
            ways.map(|way| ((node.subnet, way.subnet), way))
        })
        .collect();
    let mut all = Vec::new();
    for node in &state.nodes {
        let from = name(&node.subnet);
        let about_node = |kind: Option<&Kind>, detail: String| Row {
            test: Test::Node,
            from: from.clone(),
            to: String::new(),
            result: match kind.map(|kind| kind.severity) {
                Some(Severity::Error) => Outcome::Failed,
                _ => Outcome::Unknown,
            },
            codes: kind.iter().map(|kind| kind.code.to_owned()).collect(),
            detail,
            follows: false,
        };
        let Some(answer) = &node.answer else {
            all.push(about_node(
                Some(&CHECK_NOT_ANSWERED),
                "its agent is of an earlier version, or does not run, or does not reach the control plane".to_owned(),
            ));
            continue;
        };
        if let Some(error) = &answer.error {
            all.push(about_node(Some(&CHECK_NOT_ASKED), error.clone()));
            continue;
        }
        if answer.left_out > 0 {
            all.push(about_node(
                None,
                format!("{} peers were not asked", answer.left_out),
            ));
        }
        for other in state.nodes.iter().filter(|it| it.subnet != node.subnet) {
            let to = name(&other.subnet);
            match ways.get(&(node.subnet, other.subnet)) {
                Some(way) => {
                    let back = ways.get(&(other.subnet, node.subnet)).copied();
                    all.extend(seen_from_both(rows(&from, &to, way), way, back));
                }
                None if answer.left_out > 0 => {}
                None => all.push(Row {
                    test: Test::Vxlan,
                    to: to.clone(),
                    ..about_node(Some(&PEER_UNKNOWN), format!("{from} has no peer {to}"))
                }),
            }
        }
    }
    all
}

/// Says of a way on which nothing comes through when each end heard the other, where both tell, and which half of the way that
/// points to.
fn seen_from_both(mut rows: Vec<Row>, way: &WayChecked, back: Option<&WayChecked>) -> Vec<Row> {
    let Some(back) = back else {
        return rows;
    };
    for row in &mut rows {
        if row.test != Test::Vxlan || row.result != Outcome::Failed {
            continue;
        }
        let (from, to) = (&row.from, &row.to);
        let seen = format!(
            "{from} last heard {to} {}, and {to} {from} {}",
            ago(way),
            ago(back)
        );
        let points_to = if is_heard(way) && is_silent(back) {
            format!(": what {from} sends does not arrive at {to}")
        } else if is_silent(way) && is_heard(back) {
            format!(": what {to} sends does not arrive at {from}")
        } else {
            String::new()
        };
        row.detail = match row.detail.is_empty() {
            true => format!("{seen}{points_to}"),
            false => format!("{}; {seen}{points_to}", row.detail),
        };
    }
    rows
}

/// Whether the peer was heard while the check was made.
fn is_heard(way: &WayChecked) -> bool {
    way.heard_ms.is_some_and(|ago| ago <= JUST_NOW_MS)
}

/// Whether the peer was not heard while the check was made, nor shortly before.
fn is_silent(way: &WayChecked) -> bool {
    way.heard_ms.is_none_or(|ago| ago > LONG_AGO_MS)
}

fn ago(way: &WayChecked) -> String {
    match way.heard_ms {
        None => "never".to_owned(),
        Some(ms @ 0..10_000) => format!("{}.{} s before", ms / 1000, ms % 1000 / 100),
        Some(ms) => format!("{} before", age(ms / 1000)),
    }
}

/// What nodes are called: by hostname, where no two have it.
fn names(state: &CheckState) -> BTreeMap<Ipv4Net, String> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &state.nodes {
        *count.entry(&node.hostname).or_default() += 1;
    }
    let named = state.nodes.iter().map(|node| {
        let unique = count.get(&*node.hostname) == Some(&1) && !node.hostname.is_empty();
        let name = match unique {
            true => node.hostname.clone(),
            false => node.subnet.to_string(),
        };
        (node.subnet, name)
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use mesh_rest::check::CheckReport;

    use super::*;
    use crate::check::{
        report::Report,
        way::tests::{fine, swallowed},
    };

    fn node(third: u8, answer: Option<CheckReport>) -> NodeChecked {
        NodeChecked {
            node_id: format!("id-{third}").into(),
            hostname: format!("host{third}"),
            host_ip: [192, 0, 2, third].into(),
            subnet: format!("10.42.{third}.0/24").parse().unwrap(),
            answer,
        }
    }

    fn answer(ways: impl IntoIterator<Item = WayChecked>) -> Option<CheckReport> {
        Some(CheckReport {
            id: "1".to_owned(),
            peers: ways.into_iter().collect(),
            ..CheckReport::default()
        })
    }

    fn state(nodes: Vec<NodeChecked>) -> CheckState {
        CheckState {
            id: "1".to_owned(),
            age_ms: 1,
            open: true,
            nodes,
        }
    }

    fn troubles(state: &CheckState) -> Vec<(String, String, Outcome, String)> {
        let rows = all_rows(state).into_iter();
        rows.filter(|row| row.result != Outcome::Ok)
            .map(|row| (row.from, row.to, row.result, row.detail))
            .collect()
    }

    #[test]
    fn three_nodes_that_reach_each_other_are_six_ways_that_pass() {
        let all = state(vec![
            node(1, answer([fine(2), fine(3)])),
            node(2, answer([fine(1), fine(3)])),
            node(3, answer([fine(1), fine(2)])),
        ]);
        let report = Report::of(all_rows(&all));
        assert_eq!((report.ways, report.ways_ok), (6, 6));
        assert_eq!(report.result, Outcome::Ok);
        assert_eq!(silent(&all).count(), 0);
    }

    #[test]
    fn a_way_that_is_swallowed_in_one_direction_is_told_with_which() {
        // What 1 sends to 2 is lost: 2 asks, 1 hears that, and its answers are lost.
        let heard = WayChecked {
            heard_ms: Some(300),
            ..swallowed(2)
        };
        let all = state(vec![
            node(1, answer([heard])),
            node(2, answer([swallowed(1)])),
        ]);
        let vxlan: Vec<String> = all_rows(&all)
            .into_iter()
            .filter(|row| row.test == Test::Vxlan)
            .map(|row| row.detail)
            .collect();
        let lost = "what host1 sends does not arrive at host2";
        let expected = [
            "host1 last heard host2 0.3 s before, and host2 host1 1 min before",
            "host2 last heard host1 1 min before, and host1 host2 0.3 s before",
        ];
        assert_eq!(
            vxlan,
            expected.map(|seen| format!("vxlan-not-through was seen; {seen}: {lost}"))
        );
    }

    #[test]
    fn that_neither_end_or_both_were_heard_points_to_no_half_of_the_way() {
        for heard_ms in [None, Some(300), Some(90_000)] {
            let way = |third| WayChecked {
                heard_ms,
                ..swallowed(third)
            };
            let all = state(vec![node(1, answer([way(2)])), node(2, answer([way(1)]))]);
            for row in all_rows(&all) {
                assert!(!row.detail.contains("does not arrive"), "{}", row.detail);
            }
        }
    }

    #[test]
    fn a_node_that_has_not_answered_and_one_without_a_runtime_are_named_and_the_others_pass() {
        let no_runtime = CheckReport {
            id: "1".to_owned(),
            error: Some("no connection".to_owned()),
            ..CheckReport::default()
        };
        let all = state(vec![
            node(1, answer([fine(2), fine(3), fine(4)])),
            node(2, answer([fine(1), fine(3), fine(4)])),
            node(3, None),
            node(4, Some(no_runtime)),
        ]);
        let troubles = troubles(&all);
        assert_eq!(troubles.len(), 2, "{troubles:?}");
        assert_eq!(troubles[0].0, "host3");
        assert_eq!(troubles[0].2, Outcome::Unknown);
        assert!(troubles[0].3.contains("earlier version"));
        let codes: Vec<String> = all_rows(&all)
            .into_iter()
            .flat_map(|row| row.codes)
            .collect();
        assert_eq!(codes, ["check-not-answered", "check-not-asked"]);
        assert_eq!(troubles[1].0, "host4");
        assert_eq!(troubles[1].2, Outcome::Failed);
        assert!(troubles[1].3.contains("no connection"));
        assert_eq!(silent(&all).count(), 1);
    }

    #[test]
    fn a_node_that_has_no_such_peer_is_named_with_it() {
        let all = state(vec![node(1, answer([])), node(2, answer([fine(1)]))]);
        let told = troubles(&all);
        assert_eq!((told.len(), told[0].2), (1, Outcome::Failed));
        assert_eq!(told[0].3, "host1 has no peer host2");
    }

    #[test]
    fn what_replicas_know_is_put_together() {
        let one = state(vec![node(1, answer([fine(2)])), node(2, None)]);
        let other = state(vec![node(1, None), node(2, answer([fine(1)]))]);
        let both = together(vec![one, other]).unwrap();
        assert_eq!(silent(&both).count(), 0);
        assert!(together(Vec::new()).is_none());
    }

    #[test]
    fn hosts_of_one_name_are_told_apart_by_their_subnets() {
        let mut twin = node(2, answer([fine(1)]));
        twin.hostname = "host1".to_owned();
        let all = state(vec![node(1, answer([fine(2)])), twin]);
        let from: Vec<String> = all_rows(&all).into_iter().map(|row| row.from).collect();
        assert!(from.contains(&"10.42.1.0/24".to_owned()), "{from:?}");
    }
}
