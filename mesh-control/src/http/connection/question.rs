//! Questions that may have to wait for news, told apart from all other requests by their heads.

use axum::extract::Query;
use axum::http::Uri;

use crate::api::feed_query::FeedQuery;

/// More headers than an agent or a proxy sends.
const MOST_HEADERS: usize = 32;

/// What a request with this head asks of the change feed, if it is such a question, told to wait, and whole. Anything
/// that is not quite right is left to the API, which knows what to say about it.
pub(super) fn at_the_feed(head: &[u8]) -> Option<FeedQuery> {
    // The first bytes tell most requests apart.
    if !head.starts_with(b"GET ") {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(head).ok()?.is_complete() {
        return None;
    }
    let uri: Uri = request.path?.parse().ok()?;
    if uri.path() != "/api/nodes" {
        return None;
    }
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(&uri).ok()?;
    let query = FeedQuery::read(&parameters).ok()??;
    (!query.wait.is_zero()).then_some(query)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const QUESTION: &str =
        "GET /api/nodes?since=7&wait=2.5&database=d HTTP/1.1\r\nhost: control\r\n\r\n";

    #[test]
    fn a_question_that_is_told_to_wait_is_recognised() {
        let query = at_the_feed(QUESTION.as_bytes()).unwrap();
        assert_eq!((query.since, query.database.as_deref()), (7, Some("d")));
        assert_eq!(query.wait, Duration::from_millis(2500));
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
            ("HTTP/1.1", "HTTP/7"),
            ("host: control", "no header"),
            ("\r\n\r\n", "\r\n"),
        ] {
            let head = QUESTION.replace(from, to);
            assert_eq!(at_the_feed(head.as_bytes()), None, "{head:?}");
        }
        assert_eq!(at_the_feed(b""), None);
    }

    proptest! {
        #[test]
        fn part_of_a_question_is_none(length in 0..QUESTION.len()) {
            prop_assert_eq!(at_the_feed(&QUESTION.as_bytes()[..length]), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = at_the_feed(&[b"GET /api/nodes?", bytes.as_slice()].concat());
        }
    }
}
