//! What is wrong with what, so that it is logged when it changes and not at every sync.

use std::collections::BTreeMap;

/// The current reason of each subject that has one.
#[derive(Debug)]
pub struct Reasons<K> {
    current: BTreeMap<K, Reason>,
}

#[derive(Debug)]
struct Reason {
    /// As it was when it was news.
    text: String,
    compared: String,
}

impl<K> Default for Reasons<K> {
    fn default() -> Self {
        Self {
            current: BTreeMap::new(),
        }
    }
}

impl<K: Ord> Reasons<K> {
    /// Records why `subject` fails. True if that is news, and therefore worth a log line. That it is another time by now
    /// is none.
    pub fn note(&mut self, subject: K, reason: &str) -> bool {
        let compared = without_times(reason);
        match self.current.get(&subject) {
            Some(known) if known.compared == compared => false,
            _ => {
                let text = reason.to_owned();
                self.current.insert(subject, Reason { text, compared });
                true
            }
        }
    }

    /// Why `subject` fails, if it does.
    #[must_use]
    pub fn of(&self, subject: &K) -> Option<&str> {
        self.current.get(subject).map(|reason| &*reason.text)
    }

    /// All that fail, each with its reason.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &str)> {
        self.current
            .iter()
            .map(|(subject, reason)| (subject, &*reason.text))
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

/// The text with every time of the form 2026-11-30T06:00:00Z the same.
fn without_times(text: &str) -> String {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    let is_time = |bytes: &[u8]| {
        let fits = |(byte, form): (&u8, &u8)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        };
        bytes.len() == FORM.len() && bytes.iter().zip(FORM).all(fits)
    };
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // What has this form is ASCII, and ends between characters.
        if rest.as_bytes().get(..FORM.len()).is_some_and(is_time) {
            kept.push('T');
            rest = &rest[FORM.len()..];
        } else {
            kept.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    kept
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
    fn that_it_is_later_is_no_news() {
        let mut reasons = Reasons::default();
        let reason = |time| {
            format!("holds from 2026-11-30T05:00:00Z, and it is {time}: set the clock, \u{e4}")
        };
        assert!(reasons.note((), &reason("2026-11-30T06:00:01Z")));
        assert!(!reasons.note((), &reason("2026-12-30T07:30:41Z")));
        let first = reason("2026-11-30T06:00:01Z");
        assert_eq!(reasons.of(&()), Some(&*first));
        assert!(reasons.note((), &reason("later")));
    }

    #[test]
    fn a_forgotten_subject_is_news_again() {
        let mut reasons = Reasons::default();
        reasons.note(1, "refused");
        reasons.note(2, "refused");
        reasons.retain(|subject| *subject != 1);
        assert_eq!(reasons.iter().collect::<Vec<_>>(), [(&2, "refused")]);
        assert!(reasons.note(1, "refused"));
        assert!(!reasons.note(2, "refused"));
    }
}
