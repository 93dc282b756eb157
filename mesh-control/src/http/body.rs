//! Request bodies, bounded in size and time; and the deadline of what a request waits for.

use std::future::Future;
use std::time::{Duration, Instant};

use axum::body::{Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, EXPECT};
use futures_util::StreamExt as _;
use mesh_rest::problem_kind::Kind;
use serde_json::Value;

use super::concurrency::{FOR_OTHERS, Patience, Place, Room};
use super::limits;
use crate::api::asker::WhoAsks;
use crate::api::problem::Problem;

/// A body over the limit is read on up to this much and thrown away: were the connection closed while
/// the client still sends, the reset would overtake the answer (RFC 9112 section 9.6).
const DRAIN_LIMIT: usize = 32 * 1024 * 1024;

/// How slowly it may arrive while other requests wait for room.
const WHILE_OTHERS_WAIT: Patience = Patience {
    grace: Duration::from_secs(2),
    rate: 32 * 1024,
};

/// How often a body that does not arrive is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The body of a request.
pub(crate) async fn bytes(request: Request) -> Result<Bytes, Problem> {
    Ok(in_time(request, limits::BODY).await?.bytes)
}

/// The body of a request that may carry a report: `None` when it is empty or not declared as JSON.
pub(crate) async fn report(request: Request) -> Result<Option<Collected>, Problem> {
    let declared_json = is_json(request.headers());
    let limit = if declared_json {
        limits::REPORT
    } else {
        limits::BODY
    };
    let body = in_time(request, limit).await?;
    Ok((declared_json && !body.bytes.is_empty()).then_some(body))
}

/// A body, and its place if it turned out to be large. What had to be waited for has one anyhow, as long as the request
/// is under way.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) bytes: Bytes,
    _place: Option<Place>,
}

impl Collected {
    /// Whether to read it is more than a moment's work.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes.len() > limits::BODY
    }
}

/// Whoever sent the head may not ask any more when the body is there, which may be seconds later; see
/// [`crate::access::mandate`].
async fn in_time(mut request: Request, limit: usize) -> Result<Collected, Problem> {
    let who_asks = request.extensions_mut().remove::<WhoAsks>();
    match tokio::time::timeout(limits::BODY_ARRIVES, collect(request, limit)).await {
        Ok(collected) => {
            let collected = collected?;
            who_asks.map_or(Ok(()), |it| it.judge_again())?;
            Ok(collected)
        }
        Err(_) => {
            let seconds = limits::BODY_ARRIVES.as_secs();
            Err(too_slow(format!(
                "the body did not arrive within {seconds} s"
            )))
        }
    }
}

/// The body of a request as JSON.
pub(crate) async fn json(request: Request) -> Result<Value, Problem> {
    let declared_json = is_json(request.headers());
    let bytes = bytes(request).await?;
    if !declared_json {
        return Err(Problem::new(
            Kind::NotJsonMediaType,
            "the body must be JSON and say so: send the header Content-Type: application/json",
        ));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(Kind::Malformed, format!("the body is not JSON: {error}")))
}

/// Runs what a request waits for, until the deadline. A change goes on after it if it was queued, or is being made last by
/// then: only the client stops waiting.
pub(crate) async fn within_deadline<T>(answer: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(limits::ANSWER, answer)
        .await
        .map_err(|_| {
            let seconds = limits::ANSWER.as_secs();
            Problem::new(
                Kind::Overloaded,
                format!("there was no answer within {seconds} s; try again"),
            )
        })
}

async fn collect(request: Request, limit: usize) -> Result<Collected, Problem> {
    let began = Instant::now();
    let room = request.extensions().get().copied();
    let room: &'static Room = room.unwrap_or(&FOR_OTHERS);
    let announced = request.body().size_hint();
    let is_announced = announced.exact().is_some();
    let announced = announced.lower();
    let waits_for_continue = request.headers().contains_key(EXPECT);
    if announced > limit as u64 && waits_for_continue {
        // The client has not sent it yet, and after this answer will not (RFC 9110 section 10.1.1).
        return Err(too_large(limit));
    }
    let mut collected = Vec::new();
    let mut received = 0;
    let mut place = None;
    let mut chunks = request.into_body().into_data_stream();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            _ = look.tick() => {
                if room.is_short() && WHILE_OTHERS_WAIT.is_over(began, received as u64) {
                    return Err(too_slow("others wait for room, and the body did not arrive in time"));
                }
                continue;
            }
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|error| {
            Problem::new(Kind::Malformed, format!("the body broke off: {error}"))
        })?;
        received += chunk.len();
        if received > DRAIN_LIMIT {
            break;
        }
        if received > limit {
            // What has come is of no use any more, and what comes needs no room.
            collected = Vec::new();
            place = None;
            continue;
        }
        if received > limits::BODY && place.is_none() && !is_announced {
            place = Some(room.for_a_large_body().await?);
        }
        if collected.is_empty() && is_announced {
            // Grown bit by bit it would take twice as much, and time.
            let announced = usize::try_from(announced).unwrap_or(limit);
            collected.reserve_exact(announced.min(limit));
        }
        collected.extend_from_slice(&chunk);
    }
    if received > limit {
        return Err(too_large(limit));
    }
    Ok(Collected {
        bytes: collected.into(),
        _place: place,
    })
}

fn too_slow(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::BodyTooSlow, detail)
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        Kind::BodyTooLarge,
        format!("the body is larger than {limit} bytes"),
    )
    .with("limit_bytes", limit)
}

/// `application/json`, or a type with the structured syntax suffix `+json` (RFC 6839 section 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let media_type = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_recognised_by_its_media_type() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/merge-patch+json", true),
            ("text/plain", false),
            ("text/json+json", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(is_json(&headers), json, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
