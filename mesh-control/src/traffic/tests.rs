use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::node::Status;

fn report(peers: &[u8]) -> Report {
    let counted = |n: &u8| {
        let counters = Counters {
            tx_packets: 1,
            ..Counters::default()
        };
        (format!("10.42.{n}.0/24").parse().unwrap(), counters)
    };
    Report {
        data_plane: None,
        peers: peers.iter().map(counted).collect(),
    }
}

fn id(n: u8) -> NodeId {
    NodeId::from(format!("node-{n}"))
}

fn node(n: u8) -> Node {
    Node {
        node_id: id(n),
        hostname: format!("host-{n}"),
        host_ip: [192, 0, 2, n].into(),
        subnet: format!("10.42.{n}.0/24").parse().unwrap(),
        cpu_cores: None,
        ram_mb: None,
        status: Status::Up,
        deregistered: false,
        registered_at: 1,
        last_heartbeat: 2,
    }
}

fn matrix(table: &Table, nodes: &[u8]) -> Value {
    let chunks = Chunks::new(
        table.reports.clone(),
        nodes.iter().copied().map(node).collect(),
    );
    let text: Vec<u8> = chunks.flat_map(|chunk| chunk.unwrap().to_vec()).collect();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn without_nodes_the_matrix_is_empty() {
    let table = Table::new(10);
    assert_eq!(
        matrix(&table, &[]),
        json!({"nodes": [], "flows": [], "flows_left_out": 0})
    );
}

#[test]
fn a_flow_names_both_nodes_and_null_where_nobody_leases_the_subnet() {
    let mut table = Table::new(10);
    table.keep(id(1), report(&[2, 7]), 60);
    table.keep(id(2), report(&[1]), 70);
    let matrix = matrix(&table, &[1, 2, 3]);
    let ends: Vec<_> = matrix["flows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flow| {
            (
                flow["from"].clone(),
                flow["to"].clone(),
                flow["to_subnet"].clone(),
            )
        })
        .collect();
    assert_eq!(
        json!(ends),
        json!([
            ["node-1", "node-2", "10.42.2.0/24"],
            ["node-1", null, "10.42.7.0/24"],
            ["node-2", "node-1", "10.42.1.0/24"]
        ])
    );
    assert_eq!(matrix["flows"][0]["from_subnet"], "10.42.1.0/24");
    assert_eq!(matrix["flows"][0]["tx_packets"], 1);
    let reported: Vec<_> = matrix["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["reported_at"].clone())
        .collect();
    assert_eq!(json!(reported), json!([60, 70, null]));
}

#[test]
fn the_next_report_takes_the_place_of_the_last() {
    let mut table = Table::new(10);
    table.keep(id(1), report(&[2, 3]), 60);
    table.keep(id(1), report(&[4]), 70);
    let matrix = matrix(&table, &[1]);
    assert_eq!(matrix["flows"].as_array().unwrap().len(), 1);
    assert_eq!(matrix["flows"][0]["to_subnet"], "10.42.4.0/24");
    assert_eq!(matrix["nodes"][0]["reported_at"], 70);
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let mut table = Table::new(3);
    table.keep(id(1), report(&[2, 3]), 60);
    table.keep(id(2), report(&[1, 3]), 60);
    let full = matrix(&table, &[1, 2]);
    assert_eq!(full["flows"].as_array().unwrap().len(), 2);
    assert_eq!(full["flows_left_out"], 2);
    table.forget("node-1");
    table.keep(id(2), report(&[1, 3]), 70);
    let room = matrix(&table, &[2]);
    assert_eq!(room["flows"].as_array().unwrap().len(), 2);
    assert_eq!(room["flows_left_out"], 0);
}

#[test]
fn a_node_that_is_not_in_the_list_is_forgotten() {
    let traffic = Traffic::default();
    traffic.keep(id(1), report(&[2]), 60);
    traffic.keep(id(2), report(&[1]), 60);
    let reports = traffic.reports();
    // Registered and reported after the list was made.
    traffic.keep(id(3), report(&[1]), 61);
    let list = NodeList {
        revision: 1,
        database: String::new(),
        digest: String::new(),
        nodes: vec![node(1)],
    };
    traffic.forget_all_but(&reports, &list);
    let mut left: Vec<_> = traffic.reports().into_keys().collect();
    left.sort();
    assert_eq!(left, [id(1), id(3)]);
    assert_eq!(traffic.table().flows, 2);
}

#[derive(Debug, Clone)]
enum Step {
    Keep(u8, Vec<u8>),
    Forget(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, prop::collection::vec(any::<u8>(), 0..6))
            .prop_map(|(node, peers)| Step::Keep(node, peers)),
        (0..4u8).prop_map(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn never_more_flows_are_kept_than_there_is_room_for(steps in prop::collection::vec(step(), 0..40)) {
        let mut table = Table::new(10);
        for step in steps {
            match step {
                Step::Keep(node, peers) => table.keep(id(node), report(&peers), 0),
                Step::Forget(node) => table.forget(id(node).as_str()),
            }
            let kept: usize = table.reports.values().map(|latest| latest.report.peers.len()).sum();
            prop_assert_eq!(table.flows, kept);
            prop_assert!(kept <= 10);
        }
    }
}
