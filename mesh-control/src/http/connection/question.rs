//! Questions that may have to wait for news, told apart from all other requests by their heads.

use axum::extract::Query;
use axum::http::Method;
use mesh_rest::feed_query::FeedQuery;

use super::head::Head;
use crate::api::feed_query;

/// What a request asks of the change feed, if it is such a question and told to wait. Anything that is not quite right
/// is left to the API, which knows what to say about it. All that the API takes for such a question has to be recognised
/// here: what waits there has room that others need.
pub(super) fn at_the_feed(head: &Head) -> Option<FeedQuery> {
    let asks = [Method::GET, Method::HEAD].contains(&head.method);
    if !asks || head.uri.path() != "/api/nodes" {
        return None;
    }
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(&head.uri).ok()?;
    let query = feed_query::read(&parameters).ok()??;
    (!query.wait.is_zero()).then_some(query)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::connection::head;

    const QUESTION: &str =
        "GET /api/nodes?since=7&wait=2.5&database=d HTTP/1.1\r\nhost: control\r\n\r\n";

    fn read(text: &str) -> Option<FeedQuery> {
        at_the_feed(&head::read(text.as_bytes()).unwrap().unwrap())
    }

    #[test]
    fn a_question_that_is_told_to_wait_is_recognised() {
        let query = read(QUESTION).unwrap();
        assert_eq!((query.since, query.database.as_deref()), (7, Some("d")));
        assert_eq!(query.wait, Duration::from_millis(2500));
    }

    #[test]
    fn what_is_asked_for_the_head_alone_or_with_a_body_is_such_a_question_as_well() {
        for (from, to) in [
            ("GET", "HEAD"),
            ("host: control", "content-length: 5"),
            ("host: control", "transfer-encoding: chunked"),
            ("GET /", "GET http://control/"),
        ] {
            assert!(
                read(&QUESTION.replace(from, to)).is_some(),
                "{from:?} to {to:?}"
            );
        }
    }

    #[test]
    fn anything_else_is_left_to_the_api() {
        for (from, to) in [
            ("GET", "POST"),
            ("GET", "get"),
            ("/api/nodes", "/api/traffic"),
            ("/api/nodes", "/api/nodes/"),
            ("&wait=2.5", ""),
            ("wait=2.5", "wait=0"),
            ("wait=2.5", "wait=x"),
            ("wait=2.5", "wait=1&wait=2"),
            ("since=7&", ""),
            ("since=7", "since=-7"),
        ] {
            assert_eq!(
                read(&QUESTION.replace(from, to)),
                None,
                "{from:?} to {to:?}"
            );
        }
    }
}
