//! Who may ask what: the one place that every request goes through, before it waits or is read any further.
//!
//! Today everybody may ask everything, and what is told apart is only whose room a request takes. Credentials will be
//! looked at here: everything that is needed is in the head.

use axum::http::Method;

use super::concurrency::{FOR_NODES, FOR_OTHERS, FOR_QUESTIONS, Room};
use super::connection::head::Head;
use crate::api::problem::Problem;
use crate::registry::Registry;

/// Decides about a request. Asked once for each, when its head is read: a question waits for news after this, and hyper
/// and the API get no request that has not passed here.
///
/// # Errors
///
/// Why not, in place of an answer.
pub(super) fn admit(registry: &Registry, head: &Head) -> Result<&'static Room, Problem> {
    let room = match of_node(head) {
        // Until nodes have credentials, who knows a node's id counts as the node.
        Some((node_id, room)) if registry.knows(node_id) => room,
        _ => &FOR_OTHERS,
    };
    Ok(room)
}

/// Whose heartbeat or question it is, and where it has room.
fn of_node(head: &Head) -> Option<(&str, &'static Room)> {
    let path = head.uri.path();
    if path == "/api/nodes" {
        // Ids are plain, and who escapes one is among the others.
        let mut parameters = head.uri.query()?.split('&');
        let node_id = parameters.find_map(|it| it.strip_prefix("node="))?;
        return Some((node_id, &FOR_QUESTIONS));
    }
    let node_id = path.strip_prefix("/api/nodes/")?;
    let node_id = node_id.strip_suffix("/heartbeat")?;
    (head.method == Method::POST).then_some((node_id, &FOR_NODES))
}
