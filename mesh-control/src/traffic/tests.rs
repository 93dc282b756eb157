use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use mesh_rest::heartbeat::DataPlane;
use mesh_rest::status::Status;
use mesh_rest::traffic::Counters;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::matrix::{Database, Peers, Pieces, Place, Reported};
use super::*;
use crate::cluster::node::Node;
use crate::copy::listed_node::ListedNode;
use crate::store::StoreError;

fn report(peers: &[u8]) -> Report {
    let counted = |n: &u8| {
        let counters = Counters {
            tx_packets: 1,
            ..Counters::default()
        };
        (format!("10.42.{n}.0/24").parse().unwrap(), counters)
    };
    Report {
        peers: peers.iter().map(counted).collect(),
        ..Report::default()
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
        overlay_mtu: None,
        status: Status::Up,
        deregistered: false,
        left: false,
        registered_at: 1,
        last_heartbeat: 2,
    }
}

/// Reports as a database has them.
#[derive(Default)]
struct Stored(BTreeMap<NodeId, Report>);

impl Stored {
    fn of<T>(&self, ids: &[&NodeId], part: impl Fn(&Report) -> Option<T>) -> HashMap<NodeId, T> {
        let stored = |id: &&NodeId| Some(((*id).clone(), part(self.0.get(*id)?)?));
        ids.iter().filter_map(stored).collect()
    }
}

impl Database for Stored {
    fn data_planes<'a>(
        &'a self,
        of: &'a [&'a NodeId],
    ) -> BoxFuture<'a, Result<HashMap<NodeId, DataPlane>, StoreError>> {
        future::ready(Ok(self.of(of, |report| report.data_plane.clone()))).boxed()
    }

    fn flows<'a>(
        &'a self,
        of: &'a [&'a NodeId],
    ) -> BoxFuture<'a, Result<HashMap<NodeId, Peers>, StoreError>> {
        future::ready(Ok(self.of(of, |report| Some(report.peers.clone())))).boxed()
    }
}

/// The matrix, and of how many pieces it is.
fn pieces(nodes: Vec<Node>, told: HashMap<NodeId, Reported>, stored: &Stored) -> (Value, usize) {
    let nodes = nodes.into_iter().map(ListedNode::new).map(Arc::new);
    let mut pieces = Pieces::new(nodes.collect(), told);
    let (mut text, mut count) = (Vec::new(), 0);
    while let Some(piece) = pieces.next(stored).now_or_never().unwrap().unwrap() {
        text.extend_from_slice(&piece);
        count += 1;
    }
    (serde_json::from_slice(&text).unwrap(), count)
}

fn matrix(table: &Table, nodes: &[u8]) -> Value {
    let told = |latest: &Arc<Latest>| Reported {
        reported_at: latest.reported_at,
        age_ms: 7,
        left_out: latest.left_out,
        at: Place::Memory(Arc::clone(latest)),
    };
    let told = table
        .reports
        .iter()
        .map(|(id, latest)| (id.clone(), told(latest)));
    let nodes = nodes.iter().copied().map(node).collect();
    pieces(nodes, told.collect(), &Stored::default()).0
}

impl Table {
    fn keep_at(&mut self, node_id: NodeId, report: Report, unix_seconds: i64) {
        self.keep(node_id, report, Instant::now(), unix_seconds);
    }
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
    table.keep_at(id(1), report(&[2, 7]), 60);
    table.keep_at(id(2), report(&[1]), 70);
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
    table.keep_at(id(1), report(&[2, 3]), 60);
    table.keep_at(id(1), report(&[4]), 70);
    let matrix = matrix(&table, &[1]);
    assert_eq!(matrix["flows"].as_array().unwrap().len(), 1);
    assert_eq!(matrix["flows"][0]["to_subnet"], "10.42.4.0/24");
    assert_eq!(matrix["nodes"][0]["reported_at"], 70);
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let mut table = Table::new(3);
    table.keep_at(id(1), report(&[2, 3]), 60);
    table.keep_at(id(2), report(&[1, 3]), 60);
    let full = matrix(&table, &[1, 2]);
    assert_eq!(full["flows"].as_array().unwrap().len(), 2);
    assert_eq!(full["flows_left_out"], 2);
    table.forget("node-1");
    table.keep_at(id(2), report(&[1, 3]), 70);
    let room = matrix(&table, &[2]);
    assert_eq!(room["flows"].as_array().unwrap().len(), 2);
    assert_eq!(room["flows_left_out"], 0);
}

#[test]
fn reports_in_memory_and_in_the_database_make_one_matrix_in_the_order_of_the_subnets() {
    let mut table = Table::new(10);
    table.keep_at(id(2), report(&[1]), 70);
    let data_plane = DataPlane {
        generation: 5,
        ..DataPlane::default()
    };
    let of_the_first = Report {
        data_plane: Some(data_plane),
        ..report(&[2, 3])
    };
    // Of the third there was a report when the index was read, and there is none any more.
    let stored = Stored([(id(1), of_the_first)].into());
    let told = |at, left_out| Reported {
        reported_at: 60,
        age_ms: 9_000,
        left_out,
        at,
    };
    let told = HashMap::from([
        (id(1), told(Place::Database { flows: 2 }, 4)),
        (
            id(2),
            told(Place::Memory(Arc::clone(&table.reports[&id(2)])), 0),
        ),
        (id(3), told(Place::Database { flows: 1 }, 0)),
    ]);
    let (matrix, _) = pieces([1, 2, 3].map(node).to_vec(), told, &stored);
    assert_eq!(matrix["nodes"][0]["data_plane"]["generation"], 5);
    assert_eq!(matrix["nodes"][0]["report_age_ms"], 9_000);
    let flows = matrix["flows"].as_array().unwrap();
    let ends: Vec<_> = flows
        .iter()
        .map(|flow| (&flow["from"], &flow["to"]))
        .collect();
    assert_eq!(
        json!(ends),
        json!([
            ["node-1", "node-2"],
            ["node-1", "node-3"],
            ["node-2", "node-1"]
        ])
    );
    assert_eq!(matrix["flows_left_out"], 4);
}

#[test]
fn a_large_matrix_comes_in_pieces_that_are_bounded() {
    let nodes: Vec<_> = (0..2000_u32)
        .map(|n| Node {
            node_id: NodeId::from(format!("node-{n:04}")),
            subnet: format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap(),
            ..node(1)
        })
        .collect();
    let stored = Stored(
        nodes
            .iter()
            .map(|node| (node.node_id.clone(), report(&[1; 10])))
            .collect(),
    );
    let told: HashMap<_, _> = nodes
        .iter()
        .map(|node| {
            let told = Reported {
                reported_at: 1,
                age_ms: 1,
                left_out: 0,
                at: Place::Database { flows: 10 },
            };
            (node.node_id.clone(), told)
        })
        .collect();
    let (matrix, count) = pieces(nodes, told, &stored);
    assert_eq!(matrix["nodes"].as_array().unwrap().len(), 2000);
    assert_eq!(matrix["flows"].as_array().unwrap().len(), 20_000);
    // 512 nodes a piece, once for the nodes and once for their flows, and the end.
    assert_eq!(count, 4 + 4 + 1);
}

#[test]
fn what_waits_longest_is_written_first_also_when_it_is_replaced_meanwhile() {
    let traffic = Traffic::default();
    let began = Instant::now();
    let at = |seconds| began + std::time::Duration::from_secs(seconds);
    traffic.keep(id(1), report(&[2]), at(1), 0);
    traffic.keep(id(2), report(&[1]), at(2), 0);
    traffic.keep(id(1), report(&[3]), at(3), 0);
    let queue = traffic.queue();
    assert_eq!([&queue[0].0, &queue[1].0], [&id(1), &id(2)]);
    assert_eq!(queue[0].1.received, at(3));
    // Told again while it is written: the newer one stays.
    traffic.keep(id(1), report(&[4]), at(4), 0);
    traffic.forget_written(&id(1), &queue[0].1);
    traffic.forget_written(&id(2), &queue[1].1);
    let left: Vec<_> = traffic.reports().into_keys().collect();
    assert_eq!(left, [id(1)]);
    assert_eq!(traffic.table().flows, 1);
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
                Step::Keep(node, peers) => table.keep_at(id(node), report(&peers), 0),
                Step::Forget(node) => table.forget(id(node).as_str()),
            }
            let kept: usize = table.reports.values().map(|latest| latest.report.peers.len()).sum();
            prop_assert_eq!(table.flows, kept);
            prop_assert!(kept <= 10);
        }
    }
}
