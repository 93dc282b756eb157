//! Who sends how much to whom: the latest report of every node, and the matrix they make.
//!
//! Reports are in memory only. They are counters since a data plane was set up, every node tells them anew
//! with its next heartbeat, and nothing depends on them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures_util::stream;
use ipnet::Ipv4Net;
use mesh_rest::heartbeat::DataPlane;
use serde::Serialize;
use utoipa::ToSchema;

use crate::node::{Node, NodeId, NodeList};
use crate::report::{Counters, Report};

/// The most flows that are kept, 120 bytes each: a thousand nodes that all talk to each other. Of who
/// reports when there is no room, only the data plane's state is kept.
const MOST_FLOWS: usize = 1 << 20;

/// What a node told last.
#[derive(Debug)]
pub struct Latest {
    /// Unix seconds of the heartbeat that brought it.
    pub reported_at: i64,
    /// What it brought; without peers when there was no room for them.
    pub report: Report,
    /// Peers that there was no room for.
    pub left_out: usize,
}

/// The latest report of each node.
pub type Reports = HashMap<NodeId, Arc<Latest>>;

/// The pure core: reports and how many flows they have.
#[derive(Debug)]
struct Table {
    reports: Reports,
    flows: usize,
    most_flows: usize,
}

impl Table {
    fn new(most_flows: usize) -> Self {
        Self {
            reports: Reports::new(),
            flows: 0,
            most_flows,
        }
    }

    fn keep(&mut self, node_id: NodeId, mut report: Report, reported_at: i64) {
        self.forget(node_id.as_str());
        let mut left_out = 0;
        if self.flows + report.peers.len() > self.most_flows {
            left_out = report.peers.len();
            report.peers = Vec::new();
        }
        self.flows += report.peers.len();
        let latest = Latest {
            reported_at,
            report,
            left_out,
        };
        self.reports.insert(node_id, Arc::new(latest));
    }

    fn forget(&mut self, node_id: &str) {
        if let Some(old) = self.reports.remove(node_id) {
            self.flows -= old.report.peers.len();
        }
    }
}

/// The latest report of each node, shared by all requests.
#[derive(Debug)]
pub struct Traffic {
    table: Mutex<Table>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            table: Mutex::new(Table::new(MOST_FLOWS)),
        }
    }
}

impl Traffic {
    /// Keeps the report of a node, in place of its last.
    pub fn keep(&self, node_id: NodeId, report: Report, unix_seconds: i64) {
        self.table().keep(node_id, report, unix_seconds);
    }

    /// Forgets a node that left.
    pub fn forget(&self, node_id: &str) {
        self.table().forget(node_id);
    }

    /// Every node's latest report.
    pub fn reports(&self) -> Reports {
        self.table().reports.clone()
    }

    /// Forgets those of `reports` whose nodes are not in `list`, which was taken after them.
    pub fn forget_all_but(&self, reports: &Reports, list: &NodeList) {
        let mut strangers: HashSet<&str> = reports.keys().map(NodeId::as_str).collect();
        for node in &list.nodes {
            strangers.remove(node.node_id.as_str());
        }
        let mut table = self.table();
        for id in strangers {
            table.forget(id);
        }
    }

    /// No method of the table can panic between two writes.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node in `GET /api/traffic`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReportingNode<'a> {
    /// The node's id.
    #[schema(value_type = NodeId)]
    pub node_id: &'a NodeId,
    /// Its hostname.
    pub hostname: &'a str,
    /// The subnet it leases.
    #[schema(value_type = String, example = "10.42.1.0/24")]
    pub subnet: Ipv4Net,
    /// Unix seconds of its latest report; null when there is none.
    #[schema(required)]
    pub reported_at: Option<i64>,
    /// What it told of its data plane; null when it did not.
    #[schema(required, value_type = Option<DataPlane>)]
    pub data_plane: Option<&'a DataPlane>,
}

/// Traffic from one node to another and back, as counted by the first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Flow<'a> {
    /// The node that counted.
    #[schema(value_type = NodeId)]
    pub from: &'a NodeId,
    /// Its peer; null when no node leases that subnet.
    #[schema(required, value_type = Option<NodeId>)]
    pub to: Option<&'a NodeId>,
    /// The subnet of `from`.
    #[schema(value_type = String, example = "10.42.1.0/24")]
    pub from_subnet: Ipv4Net,
    /// The peer's subnet.
    #[schema(value_type = String, example = "10.42.1.0/24")]
    pub to_subnet: Ipv4Net,
    /// What it counted.
    #[serde(flatten)]
    pub counters: Counters,
}

/// The body of `GET /api/traffic`. It is written piece by piece; this is what it is as a whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrafficMatrix<'a> {
    /// Every node, also those that report nothing, ordered by subnet.
    pub nodes: Vec<ReportingNode<'a>>,
    /// Who counts how much with whom, ordered by the two subnets.
    pub flows: Vec<Flow<'a>>,
    /// How many flows were reported for which there was no room.
    pub flows_left_out: usize,
}

/// The answer of `GET /api/traffic`. A million flows are a quarter of a gigabyte, so it is written as
/// fast as the client reads, one node's flows at a time.
pub fn answer(reports: Reports, list: NodeList) -> Response {
    let chunks = Chunks::new(reports, list.nodes);
    let mut response = Response::new(Body::from_stream(stream::iter(chunks)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer in pieces.
struct Chunks {
    reports: Reports,
    nodes: Vec<Node>,
    by_subnet: HashMap<Ipv4Net, usize>,
    /// The node whose flows come next.
    next: usize,
    stage: Stage,
    any_flow: bool,
}

enum Stage {
    Nodes,
    Flows,
    Done,
}

impl Chunks {
    fn new(reports: Reports, nodes: Vec<Node>) -> Self {
        let by_subnet = nodes
            .iter()
            .enumerate()
            .map(|(position, node)| (node.subnet, position))
            .collect();
        Self {
            reports,
            nodes,
            by_subnet,
            next: 0,
            stage: Stage::Nodes,
            any_flow: false,
        }
    }

    fn head(&self) -> serde_json::Result<Bytes> {
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let latest = self.reports.get(&node.node_id);
                ReportingNode {
                    node_id: &node.node_id,
                    hostname: &node.hostname,
                    subnet: node.subnet,
                    reported_at: latest.map(|latest| latest.reported_at),
                    data_plane: latest.and_then(|latest| latest.report.data_plane.as_ref()),
                }
            })
            .collect();
        let mut text = br#"{"nodes":"#.to_vec();
        serde_json::to_writer(&mut text, &nodes)?;
        text.extend_from_slice(br#","flows":["#);
        Ok(text.into())
    }

    /// The flows of a node.
    fn flows(&mut self, position: usize) -> serde_json::Result<Bytes> {
        let node = &self.nodes[position];
        let mut text = Vec::new();
        let latest = self.reports.get(&node.node_id);
        for (to_subnet, counters) in latest.into_iter().flat_map(|latest| &latest.report.peers) {
            if std::mem::replace(&mut self.any_flow, true) {
                text.push(b',');
            }
            let to = self.by_subnet.get(to_subnet);
            let flow = Flow {
                from: &node.node_id,
                to: to.map(|&position| &self.nodes[position].node_id),
                from_subnet: node.subnet,
                to_subnet: *to_subnet,
                counters: *counters,
            };
            serde_json::to_writer(&mut text, &flow)?;
        }
        Ok(text.into())
    }

    fn tail(&self) -> Bytes {
        let of_nodes = self
            .nodes
            .iter()
            .filter_map(|node| self.reports.get(&node.node_id));
        let left_out: usize = of_nodes.map(|latest| latest.left_out).sum();
        format!(r#"],"flows_left_out":{left_out}}}"#).into()
    }
}

impl Iterator for Chunks {
    type Item = serde_json::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.stage {
            Stage::Nodes => {
                self.stage = Stage::Flows;
                Some(self.head())
            }
            Stage::Flows => {
                while self.next < self.nodes.len() {
                    let position = self.next;
                    self.next += 1;
                    match self.flows(position) {
                        // An empty piece would say nothing, ten thousand times.
                        Ok(text) if text.is_empty() => {}
                        piece => return Some(piece),
                    }
                }
                self.stage = Stage::Done;
                Some(Ok(self.tail()))
            }
            Stage::Done => None,
        }
    }
}

#[cfg(test)]
mod tests;
