//! Whether this host's clock and the control plane's show the same time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Clocks that differ by more are said to, in seconds.
const TOLERANCE: u64 = 60;

/// They agree again when they differ by no more than this, in seconds: less, or it would be said again and again.
const AGREEMENT: u64 = 30;

/// What this host's clock shows, in Unix seconds.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Whether the clocks differ, as far as that was said.
#[derive(Debug, Default)]
pub struct Clocks {
    differ: bool,
}

/// What is to be said of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// They differ.
    Differ,
    /// They do not any more.
    Agree,
}

impl Clocks {
    /// Takes what both show at one moment, in Unix seconds. What there is to say, if that is another thing than before.
    pub fn compare(&mut self, ours: i64, theirs: i64) -> Option<News> {
        let difference = ours.abs_diff(theirs);
        let differ = match self.differ {
            true => difference > AGREEMENT,
            false => difference > TOLERANCE,
        };
        if differ == self.differ {
            return None;
        }
        self.differ = differ;
        Some(match differ {
            true => News::Differ,
            false => News::Agree,
        })
    }

    /// Whether they differ by more than can be helped.
    #[must_use]
    pub fn differ(&self) -> bool {
        self.differ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_named_once_and_once_more_when_they_agree() {
        let mut clocks = Clocks::default();
        let mut compare = |theirs| clocks.compare(1_000, theirs);
        for (theirs, news) in [
            (1_000, None),
            (1_060, None),
            (1_061, Some(News::Differ)),
            (1_062, None),
            (900, None),
            (1_045, None),
            (1_030, Some(News::Agree)),
            (1_060, None),
            (939, Some(News::Differ)),
            (1_000, Some(News::Agree)),
            (i64::MIN, Some(News::Differ)),
        ] {
            assert_eq!(compare(theirs), news, "{theirs}");
        }
    }
}
