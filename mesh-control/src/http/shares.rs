//! How much one credential may have of what is there for all: connections, and requests that are not answered yet, also
//! those that wait for news.
//!
//! An agent has a connection or two, and a request on each. Whoever has many times as many is no agent, or one that goes
//! wrong; it gets no further than its share, and others notice nothing of it. Who shows no credential has no share:
//! behind one address there may be a thousand hosts, and what they can have in all is in [`super::concurrency`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// The connections of each certificate, and beside them the requests on all of these: a request then takes no lock.
    nodes: Counts<KeyDigest, Arc<AtomicUsize>>,
    /// The requests of each operator, by the token's id.
    operators: Counts<Box<str>, ()>,
}

/// A node's connection.
pub(super) type OfNode<'a> = Part<'a, KeyDigest, Arc<AtomicUsize>>;

/// A request, until it is dropped: of a node, of an operator, or of somebody who has no share.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    _of_node: Option<UnderWay<'a>>,
    _of_operator: Option<Part<'a, Box<str>, ()>>,
}

/// One of so many, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Shares {
    /// Takes a connection of the certificate's that was shown on it, if one was.
    ///
    /// # Errors
    ///
    /// It has its share already.
    pub(super) fn connection(&self, origin: &Origin) -> Result<Option<OfNode<'_>>, Problem> {
        let Some(certificate) = &origin.certificate else {
            return Ok(None);
        };
        let most = limits::CONNECTIONS_OF_A_NODE;
        let taken = self.nodes.take(certificate.key(), most);
        taken.map(Some).ok_or_else(|| too_many("connections", most))
    }

    /// Takes a request of who asks, on this connection.
    ///
    /// # Errors
    ///
    /// It has its share already.
    pub(super) fn request<'a>(
        &'a self,
        caller: &Caller,
        connection: Option<&'a OfNode<'a>>,
    ) -> Result<Request<'a>, Problem> {
        let refused = |most| too_many("requests that are not answered yet", most);
        let mut request = Request::default();
        match (caller, connection) {
            // A node is one by the certificate of its connection.
            (Caller::Node(_) | Caller::Renewing(_), Some(connection)) => {
                let most = limits::REQUESTS_OF_A_NODE;
                let taken = UnderWay::take(&connection.beside, most);
                request._of_node = Some(taken.ok_or_else(|| refused(most))?);
            }
            (Caller::Operator { id, .. }, _) => {
                let most = limits::REQUESTS_OF_AN_OPERATOR;
                let taken = self.operators.take(id.as_str().into(), most);
                request._of_operator = Some(taken.ok_or_else(|| refused(most))?);
            }
            (Caller::Node(_) | Caller::Renewing(_), None) | (Caller::Admin | Caller::Nobody, _) => {
            }
        }
        Ok(request)
    }
}

impl<'a> UnderWay<'a> {
    fn take(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |count| (count < most).then_some(count + 1);
        count.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self(count))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn too_many(what: &str, most: usize) -> Problem {
    let why = format!("this credential has {most} {what} already, and may have no more at a time");
    Problem::slow_down(&why, AGAIN)
}

/// How much each has, and what else there is as long as it has any.
#[derive(Debug)]
struct Counts<K, B>(Mutex<HashMap<K, (usize, B)>>);

/// Part of a share, until it is dropped.
#[derive(Debug)]
pub(super) struct Part<'a, K: Eq + Hash, B> {
    of: &'a Counts<K, B>,
    key: K,
    beside: B,
}

impl<K, B> Default for Counts<K, B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, B: Clone + Default> Counts<K, B> {
    fn take(&self, key: K, most: usize) -> Option<Part<'_, K, B>> {
        let mut counts = self.counts();
        let (count, beside) = counts.entry(key.clone()).or_default();
        // One that is not there has nothing, and may have something.
        if *count >= most {
            return None;
        }
        *count += 1;
        let beside = beside.clone();
        Some(Part {
            of: self,
            key,
            beside,
        })
    }
}

impl<K, B> Counts<K, B> {
    fn counts(&self) -> MutexGuard<'_, HashMap<K, (usize, B)>> {
        // Nothing that it is locked for panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, B> Drop for Part<'_, K, B> {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        match counts.get_mut(&self.key) {
            Some((count, _)) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.key);
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
            let counts = Counts::<u8, ()>::default();
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

        /// The same of requests, over however many connections of one certificate.
        #[test]
        fn a_certificate_has_one_share_of_requests_over_all_its_connections(
            steps in prop::collection::vec((0usize..3, 0usize..9, any::<bool>()), 1..200)
        ) {
            const MOST: usize = 4;
            let nodes = Counts::<u8, Arc<AtomicUsize>>::default();
            let connections: Vec<_> = (0..3).map(|_| nodes.take(7, 3).unwrap()).collect();
            let mut under_way = Vec::new();
            for (on, at, takes) in steps {
                if takes {
                    let taken = UnderWay::take(&connections[on].beside, MOST);
                    prop_assert_eq!(taken.is_some(), under_way.len() < MOST);
                    under_way.extend(taken);
                } else if !under_way.is_empty() {
                    drop(under_way.swap_remove(at % under_way.len()));
                }
            }
            drop(under_way);
            prop_assert_eq!(connections[0].beside.load(Relaxed), 0);
            drop(connections);
            prop_assert!(nodes.counts().is_empty());
        }
    }
}
