//! The node list, and what changed in it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use mesh_rest::feed_query::FeedQuery;
use mesh_rest::heartbeat_token::HeartbeatToken;
use tracing::error;

use super::feed_query;
use super::openapi::{ListOrChanges, WhenListing};
use super::problem::Problem;
use super::refusal::of_sign;
use super::token::{NextToken, token};
use crate::http::connection::Waited;
use crate::http::{answer, body};
use crate::registry::Registry;

/// Every node, or what changed
///
/// Without parameters the whole list. With `since=R` what changed after revision R: the nodes that are new or
/// different, the ids of those that were removed, and the revision to ask with next. With `wait` as well, the answer
/// comes when there is news, or after that many seconds without. `full` is true and `nodes` the whole list when R is
/// too old, unknown, or of another `database`. A new `last_heartbeat` alone is no news.
#[utoipa::path(
    get,
    path = "/api/nodes",
    tag = "nodes",
    operation_id = "list",
    params(
        ("since" = Option<i64>, Query, minimum = 0, description = "The revision that the asker has"),
        ("wait" = Option<f64>, Query, minimum = 0, maximum = 60,
            description = "How many seconds to wait for news; needs `since`"),
        ("database" = Option<String>, Query,
            description = "The `database` that `since` is a revision of; needs `since`"),
        ("node" = Option<String>, Query,
            description = "The id of the node that asks, which counts as its heartbeat; needs `since`")
    ),
    responses((status = 200, body = ListOrChanges, headers(
        ("quilt-mesh-token" = Option<String>,
            description = "For a `node`: to be sent, in the same header, with the next question or heartbeat"),
        ("quilt-mesh-check" = Option<String>,
            description = "As with heartbeats; a `node` that waits for news is answered when there is another one"))), WhenListing)
)]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    headers: HeaderMap,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<(Option<NextToken>, Response), Problem> {
    let Query(parameters) =
        parameters.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    match feed_query::read(&parameters) {
        Err(rule) => Err(Problem::malformed(rule)),
        Ok(None) => {
            body::within_deadline(registry.refresh()).await??;
            let _turn = body::within_deadline(answer::turn()).await?;
            Ok((None, answer_json(registry.list())?))
        }
        Ok(Some(query)) => {
            let token = token(&headers);
            if let Some(id) = &query.node {
                let asked = registry.asked_by(id, token);
                of_sign(body::within_deadline(asked).await?, id)?;
            }
            let answer = feed_answer(&registry, &query).await?;
            Ok((next_token(&registry, &query, token), answer))
        }
    }
}

/// The answer to a question that has waited.
pub(crate) async fn after_waiting(registry: &Registry, waited: Waited) -> Response {
    let Waited { query, token } = waited;
    let wait = Duration::ZERO;
    let query = FeedQuery { wait, ..query };
    let answer = feed_answer(registry, &query).await;
    let answer = answer.map(|answer| (next_token(registry, &query, token), answer));
    answer.into_response()
}

/// What the node that asks comes with next: handed out when it is answered, and not when it began to wait, or it would
/// be an old one by then.
fn next_token(
    registry: &Registry,
    query: &FeedQuery,
    token: Option<HeartbeatToken>,
) -> Option<NextToken> {
    let next = registry.hand_out(query.node.as_ref()?, token)?;
    Some(NextToken(next))
}

async fn feed_answer(registry: &Registry, query: &FeedQuery) -> Result<Response, Problem> {
    // Before its turn, which it must not keep while it waits.
    registry.wait_for_news(query).await?;
    let _turn = match registry.is_far_behind(query) {
        true => body::within_deadline(answer::turn()).await?,
        false => {
            body::within_deadline(answer::room()).await?;
            None
        }
    };
    answer_json(registry.changes(query))
}

fn answer_json(text: Result<Bytes, serde_json::Error>) -> Result<Response, Problem> {
    match text {
        Ok(json) => Ok(answer::json(json)),
        Err(error) => {
            error!(name: "node-list-cannot-serialised", %error, "a node list cannot be serialised; this is a bug");
            Err(Problem::bug())
        }
    }
}
