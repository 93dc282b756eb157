//! The answer of `GET /api/traffic`. A million flows are a quarter of a gigabyte, so it is written as fast as
//! the client reads, and what is in the database is read from there just as fast, a page at a time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use futures_util::future::BoxFuture;
use futures_util::stream;
use ipnet::Ipv4Net;
use mesh_rest::heartbeat::DataPlane;
use mesh_rest::node_id::NodeId;
use mesh_rest::traffic::{Counters, Flow, ReportingNode};
use thiserror::Error;

use super::Latest;
use crate::copy::listed_node::ListedNode;
use crate::store::StoreError;

/// The most nodes whose reports are in one piece of the answer.
const NODES_IN_PIECE: usize = 512;

/// A piece of the answer ends with the node with which it has so many flows. One node has at most
/// [`crate::traffic::report::MOST_PEERS`].
const FLOWS_IN_PIECE: usize = 8192;

/// What is known of a node's latest report.
#[derive(Debug)]
pub struct Reported {
    /// Unix seconds at which it came.
    pub reported_at: i64,
    /// How long ago that is.
    pub age_ms: u64,
    /// Peers that there was no room for.
    pub left_out: usize,
    /// Where it is.
    pub at: Place,
}

/// Where a report is.
#[derive(Debug)]
pub enum Place {
    /// In memory.
    Memory(Arc<Latest>),
    /// In the database.
    Database {
        /// How many flows it has.
        flows: usize,
    },
}

/// Traffic with each peer.
pub type Peers = Vec<(Ipv4Net, Counters)>;

/// Reads reports from the database. One that is gone by now is left out, and a newer one may have taken the place
/// of the one that [`Reported`] tells of.
pub trait Database: Send + Sync {
    /// What these nodes told of their data planes.
    fn data_planes<'a>(
        &'a self,
        of: &'a [&'a NodeId],
    ) -> BoxFuture<'a, Result<HashMap<NodeId, DataPlane>, StoreError>>;

    /// What they told of their traffic.
    fn flows<'a>(
        &'a self,
        of: &'a [&'a NodeId],
    ) -> BoxFuture<'a, Result<HashMap<NodeId, Peers>, StoreError>>;
}

/// Why an answer that was begun is not finished. The client sees the connection break off.
#[derive(Debug, Error)]
pub enum Broken {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value that cannot be serialised: a bug.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Answers with the matrix of these nodes, which are ordered by subnet, and holds on to `place` until it is sent.
pub fn answer(
    nodes: Vec<Arc<ListedNode>>,
    told: HashMap<NodeId, Reported>,
    database: Arc<dyn Database>,
    place: impl Send + 'static,
) -> Response {
    let pieces = Pieces::new(nodes, told);
    let state = (pieces, database, place);
    let pieces = stream::try_unfold(state, async |(mut pieces, database, place)| {
        let piece = pieces.next(&*database).await?;
        Ok::<_, Broken>(piece.map(|piece| (piece, (pieces, database, place))))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer in pieces.
pub(super) struct Pieces {
    /// What each told beside it.
    nodes: Vec<(Arc<ListedNode>, Option<Reported>)>,
    by_subnet: HashMap<Ipv4Net, usize>,
    stage: Stage,
    any_flow: bool,
}

/// What comes next, from the node at this position on.
#[derive(Clone, Copy)]
enum Stage {
    Nodes(usize),
    Flows(usize),
    Done,
}

impl Pieces {
    pub(super) fn new(nodes: Vec<Arc<ListedNode>>, mut told: HashMap<NodeId, Reported>) -> Self {
        let by_subnet = nodes
            .iter()
            .enumerate()
            .map(|(position, node)| (node.subnet, position))
            .collect();
        let nodes = nodes
            .into_iter()
            .map(|node| {
                let told = told.remove(&node.node_id);
                (node, told)
            })
            .collect();
        Self {
            nodes,
            by_subnet,
            stage: Stage::Nodes(0),
            any_flow: false,
        }
    }

    pub(super) async fn next(&mut self, database: &dyn Database) -> Result<Option<Bytes>, Broken> {
        loop {
            match self.stage {
                Stage::Nodes(from) => {
                    let to = self.nodes.len().min(from + NODES_IN_PIECE);
                    self.stage = match to == self.nodes.len() {
                        true => Stage::Flows(0),
                        false => Stage::Nodes(to),
                    };
                    return self.nodes(from..to, database).await.map(Some);
                }
                Stage::Flows(from) if from == self.nodes.len() => {
                    self.stage = Stage::Done;
                    return Ok(Some(self.tail()));
                }
                Stage::Flows(from) => {
                    let page = self.page(from);
                    self.stage = Stage::Flows(page.end);
                    let text = self.flows(page, database).await?;
                    // An empty piece would say nothing.
                    if !text.is_empty() {
                        return Ok(Some(text));
                    }
                }
                Stage::Done => return Ok(None),
            }
        }
    }

    /// The nodes whose flows make a piece.
    fn page(&self, from: usize) -> Range<usize> {
        let mut flows = 0;
        let full = |(_, told): &(Arc<ListedNode>, Option<Reported>)| {
            flows += match told.as_ref().map(|told| &told.at) {
                Some(Place::Memory(latest)) => latest.report.peers.len(),
                Some(Place::Database { flows }) => *flows,
                None => 0,
            };
            flows >= FLOWS_IN_PIECE
        };
        let rest = &self.nodes[from..];
        let last = rest.iter().take(NODES_IN_PIECE).position(full);
        let count = last.map_or(rest.len().min(NODES_IN_PIECE), |last| last + 1);
        from..from + count
    }

    /// Those of some nodes whose reports have to be read.
    fn in_database(&self, page: Range<usize>) -> Vec<&NodeId> {
        self.nodes[page]
            .iter()
            .filter(|(_, told)| {
                let at = told.as_ref().map(|told| &told.at);
                matches!(at, Some(Place::Database { .. }))
            })
            .map(|(node, _)| &node.node_id)
            .collect()
    }

    async fn nodes(&self, page: Range<usize>, database: &dyn Database) -> Result<Bytes, Broken> {
        let ids = self.in_database(page.clone());
        let read = match ids.is_empty() {
            true => HashMap::new(),
            false => database.data_planes(&ids).await?,
        };
        let mut text = Vec::new();
        if page.start == 0 {
            text.extend_from_slice(br#"{"nodes":["#);
        }
        for position in page.clone() {
            let (node, told) = &self.nodes[position];
            if position > 0 {
                text.push(b',');
            }
            let data_plane = told.as_ref().and_then(|told| match &told.at {
                Place::Memory(latest) => latest.report.data_plane.as_ref(),
                Place::Database { .. } => read.get(&node.node_id),
            });
            let node = ReportingNode {
                node_id: Cow::Borrowed(&node.node_id),
                hostname: Cow::Borrowed(&node.hostname),
                subnet: node.subnet,
                reported_at: told.as_ref().map(|told| told.reported_at),
                report_age_ms: told.as_ref().map(|told| told.age_ms),
                data_plane: data_plane.map(Cow::Borrowed),
            };
            serde_json::to_writer(&mut text, &node)?;
        }
        if page.end == self.nodes.len() {
            text.extend_from_slice(br#"],"flows":["#);
        }
        Ok(text.into())
    }

    async fn flows(
        &mut self,
        page: Range<usize>,
        database: &dyn Database,
    ) -> Result<Bytes, Broken> {
        let ids = self.in_database(page.clone());
        let read = match ids.is_empty() {
            true => HashMap::new(),
            false => database.flows(&ids).await?,
        };
        let mut text = Vec::new();
        let mut any_flow = self.any_flow;
        for (node, told) in &self.nodes[page] {
            let peers = match told.as_ref().map(|told| &told.at) {
                Some(Place::Memory(latest)) => Some(&latest.report.peers),
                Some(Place::Database { .. }) => read.get(&node.node_id),
                None => None,
            };
            for (to_subnet, counters) in peers.into_iter().flatten() {
                if std::mem::replace(&mut any_flow, true) {
                    text.push(b',');
                }
                let to = self.by_subnet.get(to_subnet);
                let flow = Flow {
                    from: Cow::Borrowed(&node.node_id),
                    to: to.map(|&position| Cow::Borrowed(&self.nodes[position].0.node_id)),
                    from_subnet: node.subnet,
                    to_subnet: *to_subnet,
                    counters: *counters,
                };
                serde_json::to_writer(&mut text, &flow)?;
            }
        }
        self.any_flow = any_flow;
        Ok(text.into())
    }

    fn tail(&self) -> Bytes {
        let told = self.nodes.iter().filter_map(|(_, told)| told.as_ref());
        let left_out: usize = told.map(|told| told.left_out).sum();
        format!(r#"],"flows_left_out":{left_out}}}"#).into()
    }
}
