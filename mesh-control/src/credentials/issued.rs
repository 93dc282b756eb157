//! How often one key is given a certificate. A renewal is due once in days, and a host asks again by the token that it has
//! joined with when an answer was lost: whoever asks more often than that is told to wait, before anything is signed or
//! written. Others notice nothing of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_credentials::key_digest::KeyDigest;

use crate::access::rate::{Debt, Rate};

/// For one key. A rotation of the authority has each node renew a few times, and who lost an answer asks again soon.
const EACH: Rate = Rate {
    burst: 10,
    interval: Duration::from_secs(60),
};

/// Keys that are remembered, some fifty bytes each. Each was a valid certificate's, or used a token up by one host.
const MOST_KEYS: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Issued(Mutex<HashMap<KeyDigest, Debt>>);

impl Issued {
    /// The key asks for a certificate at `now`.
    ///
    /// # Errors
    ///
    /// It did so too often: in how much time it is given one again.
    pub(crate) fn ask(&self, key: KeyDigest, now: Instant) -> Result<(), Duration> {
        // Each change is one insertion, which a panic elsewhere leaves whole.
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(debt) = keys.get_mut(&key) {
            return debt.take(EACH, now);
        }
        if keys.len() >= MOST_KEYS {
            make_room(&mut keys, now);
        }
        let mut debt = Debt::none(now);
        let first = debt.take(EACH, now);
        keys.insert(key, debt);
        first
    }

    /// It was given none, for reasons that are not its own.
    pub(crate) fn give_back(&self, key: KeyDigest) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(debt) = keys.get_mut(&key) {
            debt.give_back(EACH);
        }
    }
}

/// Forgets those that owe nothing, and, if that is not enough, the one that owes least.
fn make_room(keys: &mut HashMap<KeyDigest, Debt>, now: Instant) {
    keys.retain(|_, debt| !debt.is_paid(now));
    if keys.len() < MOST_KEYS {
        return;
    }
    let least = keys.iter().min_by_key(|(_, debt)| **debt);
    if let Some(least) = least.map(|(key, _)| *key) {
        keys.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_given_a_burst_and_then_one_in_a_while_and_others_what_is_theirs() {
        let (issued, start) = (Issued::default(), Instant::now());
        let (one, other) = (KeyDigest::of(b"one"), KeyDigest::of(b"other"));
        for _ in 0..EACH.burst {
            assert_eq!(issued.ask(one, start), Ok(()));
        }
        let wait = issued.ask(one, start).unwrap_err();
        assert_eq!(wait, EACH.interval);
        assert_eq!(issued.ask(other, start), Ok(()));
        // Whoever asks meanwhile does not wait longer for it.
        assert!(issued.ask(one, start + wait / 2).is_err());
        assert_eq!(issued.ask(one, start + wait), Ok(()));
        assert!(issued.ask(one, start + wait).is_err());
        issued.give_back(one);
        assert_eq!(issued.ask(one, start + wait), Ok(()));
        assert!(issued.ask(one, start + wait).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_owes_most_is_not_forgotten() {
        let (issued, now) = (Issued::default(), Instant::now());
        let busy = KeyDigest::of(b"busy");
        while issued.ask(busy, now).is_ok() {}
        for number in 0..MOST_KEYS + 3 {
            let _ = issued.ask(KeyDigest::of(&number.to_be_bytes()), now);
        }
        assert_eq!(issued.0.lock().unwrap().len(), MOST_KEYS);
        assert!(issued.ask(busy, now).is_err());
        // All but one owe nothing any more.
        let later = now + EACH.interval;
        let _ = issued.ask(KeyDigest::of(b"new"), later);
        assert_eq!(issued.0.lock().unwrap().len(), 2);
    }
}
