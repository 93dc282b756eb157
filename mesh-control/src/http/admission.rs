//! Who may ask what: the one place that every request goes through, before it waits or is read any further.
//!
//! Everything that is needed is in the head. What is decided, and by what, is in [`crate::access`]; here it is asked, and
//! it is told apart whose room a request takes.

use axum::http::Method;

use mesh_rest::problem_kind::Kind;

use super::concurrency::{FOR_NODES, FOR_OTHERS, FOR_QUESTIONS, Room};
use super::connection::head::Head;
use crate::access::caller::{Caller, Shown};
use crate::access::origin::Origin;
use crate::access::{Access, Asked, Refused};
use crate::api::access::Needs;
use crate::api::guard::LetIn;
use crate::api::problem::Problem;
use crate::registry::Registry;

/// A request that was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Whose room it takes.
    pub(super) room: &'static Room,
    /// Who asks.
    pub(super) caller: Caller,
    /// What it was let in for.
    pub(super) asked: Asked,
}

impl Admitted {
    pub(super) fn let_in(&self) -> LetIn {
        LetIn {
            entry: self.asked.needs.entry,
            by_admin: self.caller == Caller::Admin,
        }
    }
}

/// Decides about a request. Asked once for each, when its head is read: a question waits for news after this, and hyper
/// and the API get no request that has not passed here.
///
/// # Errors
///
/// Why not, in place of an answer.
pub(super) fn admit(
    registry: &Registry,
    access: &Access,
    origin: &Origin,
    head: &Head,
) -> Result<Box<Admitted>, Problem> {
    let asked = Asked::new(Needs::of(&head.method, &head.uri), &head.headers);
    let judged = access.judge(origin, &asked).and_then(|caller| {
        access.judge_names(origin, &head.uri, &head.headers)?;
        Ok(caller)
    });
    let caller = judged.map_err(|refused| {
        if refused.kind == Kind::UnknownNode {
            // It is no failure to have to register.
            return refused.into();
        }
        let what = format!("{} {}", head.method, head.uri.path());
        let who = access.who(origin, &asked.shown);
        access.refuse(origin, &who, (&asked.needs.call(), &what), refused.into())
    })?;
    let room = match of_node(head) {
        // Where nodes need no credentials, who knows a node's id counts as the node.
        Some((node_id, room)) if registry.knows(node_id) => room,
        _ => &FOR_OTHERS,
    };
    let asked = asked.of(&caller);
    Ok(Box::new(Admitted {
        room,
        caller,
        asked,
    }))
}

/// What to answer to what is refused before a request, or after it was admitted, to whoever this is.
pub(super) fn refuse(
    access: &Access,
    origin: &Origin,
    shown: &Shown,
    what: &str,
    refused: Refused,
) -> Problem {
    let who = access.who(origin, shown);
    access.refuse(origin, &who, (call_of(what), what), refused.into())
}

/// What is before a colon: what comes after it differs each time.
fn call_of(what: &str) -> &str {
    what.split_once(':').map_or(what, |(call, _)| call)
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
