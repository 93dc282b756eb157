//! What is asked of the change feed: the parameters of `GET /api/nodes`.

use std::time::Duration;

/// The longest wait for news, in seconds.
pub const LONGEST_WAIT_SECONDS: u64 = 60;

/// What a request asks of the change feed. Without one it is asked for the whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedQuery {
    /// The revision that the asker has.
    pub since: i64,
    /// How long to wait for news; at most [`LONGEST_WAIT_SECONDS`].
    pub wait: Duration,
    /// The database that `since` is a revision of, if the asker knows.
    pub database: Option<String>,
    /// The node that asks, if it says so: the question is a sign that it lives.
    pub node: Option<String>,
}

impl FeedQuery {
    /// The parameters, in the order in which they stand.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = vec![
            ("since", self.since.to_string()),
            ("wait", self.wait.as_secs_f64().to_string()),
        ];
        let optional = [("database", &self.database), ("node", &self.node)];
        let told = |(name, value): (_, &Option<String>)| Some((name, value.clone()?));
        parameters.extend(optional.into_iter().filter_map(told));
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_asked_for() {
        let mut query = FeedQuery {
            since: 7,
            wait: Duration::from_millis(2500),
            database: Some("d".to_owned()),
            node: Some("n".to_owned()),
        };
        let text = |query: &FeedQuery| {
            let pairs = query.parameters().into_iter();
            let pairs = pairs.map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join("&")
        };
        assert_eq!(text(&query), "since=7&wait=2.5&database=d&node=n");
        query.database = None;
        query.node = None;
        assert_eq!(text(&query), "since=7&wait=2.5");
    }
}
