//! The parameters of `GET /api/nodes`: none for the whole list, `since` and more for the change feed.

use std::time::Duration;

use mesh_rest::feed_query::{FeedQuery, LONGEST_WAIT_SECONDS};

/// Reads the parameters of a request; those that are not known are ignored. `None`: the
/// whole list.
///
/// # Errors
///
/// The parameter, its value and the rule, in words.
pub fn read(parameters: &[(String, String)]) -> Result<Option<FeedQuery>, String> {
    let since = parameter(parameters, "since")?;
    let wait = parameter(parameters, "wait")?;
    let database = parameter(parameters, "database")?;
    let node = parameter(parameters, "node")?;
    let Some(since) = since else {
        return match (wait, database, node) {
            (None, None, None) => Ok(None),
            (Some(_), ..) => Err("wait needs since, the revision to wait beyond".to_owned()),
            (None, Some(_), _) => Err("database needs since, a revision of it".to_owned()),
            (None, None, Some(_)) => Err("node needs since, the revision that it has".to_owned()),
        };
    };
    let since = since
        .parse()
        .ok()
        .filter(|since: &i64| *since >= 0)
        .ok_or_else(|| {
            format!("since must be a revision, a whole number from 0, but is {since:?}")
        })?;
    Ok(Some(FeedQuery {
        since,
        wait: wait.map_or(Ok(Duration::ZERO), seconds)?,
        database: database.map(str::to_owned),
        node: node.map(str::to_owned),
    }))
}

/// The value of a parameter that may be given once.
fn parameter<'a>(
    parameters: &'a [(String, String)],
    name: &str,
) -> Result<Option<&'a str>, String> {
    let mut values = parameters
        .iter()
        .filter(|(given, _)| given == name)
        .map(|(_, value)| value.as_str());
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(format!("{name} is given more than once")),
    }
}

/// A decimal number of seconds: digits, and at most one point with digits after it.
fn seconds(text: &str) -> Result<Duration, String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.ends_with(|last: char| last.is_ascii_digit());
    plain
        .then(|| text.parse::<f64>().ok())
        .flatten()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|wait| *wait <= Duration::from_secs(LONGEST_WAIT_SECONDS))
        .ok_or_else(|| {
            format!(
                "wait must be a decimal number of seconds from 0 to {LONGEST_WAIT_SECONDS}, but is {text:?}"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(query: &[(&str, &str)]) -> Result<Option<FeedQuery>, String> {
        let owned: Vec<_> = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        read(&owned)
    }

    #[test]
    fn no_parameters_and_unknown_ones_ask_for_the_whole_list() {
        assert_eq!(read_pairs(&[]), Ok(None));
        assert_eq!(read_pairs(&[("colour", "blue")]), Ok(None));
    }

    #[test]
    fn a_feed_query_is_read() {
        let query = read_pairs(&[
            ("since", "7"),
            ("wait", "2.5"),
            ("database", "d"),
            ("node", "n"),
        ]);
        assert_eq!(
            query,
            Ok(Some(FeedQuery {
                since: 7,
                wait: Duration::from_millis(2500),
                database: Some("d".to_owned()),
                node: Some("n".to_owned()),
            }))
        );
        let query = read_pairs(&[("since", "0")]).unwrap().unwrap();
        assert_eq!((query.wait, query.database), (Duration::ZERO, None));
        assert!(read_pairs(&[("since", "1"), ("wait", "60")]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value_and_the_rule() {
        for (query, words) in [
            (&[("since", "")][..], "since must be a revision"),
            (&[("since", "-1")], "but is \"-1\""),
            (&[("since", "1.0")], "whole number"),
            (&[("since", "9223372036854775808")], "whole number"),
            (&[("since", "x")], "but is \"x\""),
            (
                &[("since", "1"), ("since", "2")],
                "since is given more than once",
            ),
            (&[("wait", "1")], "wait needs since"),
            (&[("node", "n")], "node needs since"),
            (&[("database", "d")], "database needs since"),
            (&[("since", "1"), ("wait", "")], "from 0 to 60"),
            (&[("since", "1"), ("wait", "60.1")], "but is \"60.1\""),
            (&[("since", "1"), ("wait", "-1")], "decimal number"),
            (&[("since", "1"), ("wait", "inf")], "decimal number"),
            (&[("since", "1"), ("wait", "NaN")], "decimal number"),
            (&[("since", "1"), ("wait", "1e1")], "decimal number"),
            (&[("since", "1"), ("wait", "1.2.3")], "decimal number"),
            (&[("since", "1"), ("wait", "5s")], "decimal number"),
        ] {
            let message = read_pairs(query).unwrap_err();
            assert!(message.contains(words), "{query:?}: {message}");
        }
    }
}
