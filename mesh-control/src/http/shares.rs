//! How much one credential may have of what is there for all: connections, and requests that are not answered yet, also
//! those that wait for news.
//!
//! An agent has a connection or two, and a request on each. Whoever has many times as many is no agent, or one that goes
//! wrong; it gets no further than its share, and others notice nothing of it. Who shows no credential has no share:
//! behind one address there may be a thousand hosts, and what they can have in all is in [`super::concurrency`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_credentials::key_digest::KeyDigest;

use super::limits;
use crate::access::caller::Caller;
use crate::access::origin::Origin;
use crate::api::problem::Problem;

/// When it is worth trying again. Whoever waits for news is answered within a minute.
const AGAIN: Duration = Duration::from_secs(5);

/// The shares of all credentials.
#[derive(Debug, Default)]
pub(super) struct Shares {
    connections: Counts<KeyDigest>,
    requests: Counts<Who>,
}

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// A node's, by its id.
    Node(Box<str>),
    /// An operator's, by the id of the token.
    Operator(Box<str>),
}

/// Part of a share, until it is dropped. Who has no share has parts of nothing.
#[derive(Debug)]
pub(super) struct Part<'a, K: Eq + Hash>(Option<(&'a Counts<K>, K)>);

impl Shares {
    /// Takes a connection of the certificate's that was shown on it.
    ///
    /// # Errors
    ///
    /// It has its share already.
    pub(super) fn connection(&self, origin: &Origin) -> Result<Part<'_, KeyDigest>, Problem> {
        let Some(certificate) = &origin.certificate else {
            return Ok(Part(None));
        };
        let most = limits::CONNECTIONS_OF_A_NODE;
        self.connections
            .take(certificate.key(), most)
            .ok_or_else(|| too_many("connections", most))
    }

    /// Takes a request of who asks.
    ///
    /// # Errors
    ///
    /// It has its share already.
    pub(super) fn request(&self, caller: &Caller) -> Result<Part<'_, Who>, Problem> {
        let (who, most) = match caller {
            Caller::Node(node_id) | Caller::Renewing(node_id) => (
                Who::Node(node_id.as_str().into()),
                limits::REQUESTS_OF_A_NODE,
            ),
            Caller::Operator { id, .. } => (
                Who::Operator(id.as_str().into()),
                limits::REQUESTS_OF_AN_OPERATOR,
            ),
            Caller::Admin | Caller::Nobody => return Ok(Part(None)),
        };
        let taken = self.requests.take(who, most);
        taken.ok_or_else(|| too_many("requests that are not answered yet", most))
    }
}

fn too_many(what: &str, most: usize) -> Problem {
    let why = format!("this credential has {most} {what} already, and may have no more at a time");
    Problem::slow_down(&why, AGAIN)
}

/// How much each has.
#[derive(Debug)]
struct Counts<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Counts<K> {
    fn take(&self, key: K, most: usize) -> Option<Part<'_, K>>
    where
        K: Clone,
    {
        let mut counts = self.counts();
        let count = counts.entry(key.clone()).or_default();
        // One that is not there has nothing, and may have something.
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Part(Some((self, key))))
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // Nothing that it is locked for panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Part<'_, K> {
    fn drop(&mut self) {
        let Some((of, key)) = &self.0 else { return };
        let mut counts = of.counts();
        match counts.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes and goes, nobody has more than its share, nobody is refused who has less, and nothing is left.
        #[test]
        fn everybody_has_its_share_and_no_more(steps in prop::collection::vec((0u8..3, 0usize..9, any::<bool>()), 1..200)) {
            const MOST: usize = 4;
            let counts = Counts::default();
            let mut parts = Vec::new();
            for (key, at, takes) in steps {
                let had = parts.iter().filter(|(other, _)| *other == key).count();
                if takes {
                    let part = counts.take(key, MOST);
                    prop_assert_eq!(part.is_some(), had < MOST);
                    parts.extend(part.map(|part| (key, part)));
                } else if !parts.is_empty() {
                    drop(parts.swap_remove(at % parts.len()));
                }
            }
            drop(parts);
            prop_assert!(counts.counts().is_empty());
        }
    }
}
