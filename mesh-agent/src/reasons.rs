//! What is wrong with what, so that it is logged when it changes and not at every sync.

use std::collections::BTreeMap;

/// The current reason of each subject that has one.
#[derive(Debug)]
pub struct Reasons<K> {
    current: BTreeMap<K, String>,
}

impl<K> Default for Reasons<K> {
    fn default() -> Self {
        Self {
            current: BTreeMap::new(),
        }
    }
}

impl<K: Ord> Reasons<K> {
    /// Records why `subject` fails. True if that is news, and therefore worth a log line.
    pub fn note(&mut self, subject: K, reason: &str) -> bool {
        match self.current.get(&subject) {
            Some(known) if known == reason => false,
            _ => {
                self.current.insert(subject, reason.to_owned());
                true
            }
        }
    }

    /// Records that `subject` is well. True if it was not before.
    pub fn resolve(&mut self, subject: &K) -> bool {
        self.current.remove(subject).is_some()
    }

    /// Forgets the subjects that no longer exist.
    pub fn retain(&mut self, exists: impl Fn(&K) -> bool) {
        self.current.retain(|subject, _| exists(subject));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_news_once_until_it_changes_or_returns() {
        let mut reasons = Reasons::default();
        assert!(reasons.note("route", "refused"));
        assert!(!reasons.note("route", "refused"));
        assert!(reasons.note("route", "timed out"));
        assert!(reasons.resolve(&"route"));
        assert!(!reasons.resolve(&"route"));
        assert!(reasons.note("route", "timed out"));
    }

    #[test]
    fn a_forgotten_subject_is_news_again() {
        let mut reasons = Reasons::default();
        reasons.note(1, "refused");
        reasons.note(2, "refused");
        reasons.retain(|subject| *subject != 1);
        assert!(reasons.note(1, "refused"));
        assert!(!reasons.note(2, "refused"));
    }
}
