//! Whether a database is what became of the one that was read before.
//!
//! A database can go back: an older backup is restored, a standby is promoted that lacks the last commits, or an empty
//! database takes its place. From there it goes on, and its revisions are numbered as those that are lost. So each
//! revision has a *mark*, random and stored with it. Whoever has a copy of revision 9 and finds another mark at 9, or no 9 at
//! all, has a copy of another history.

use std::sync::Arc;

/// The mark of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(i64);

impl Mark {
    /// A new one, which no other revision has (64 random bits).
    pub fn random() -> Self {
        let (bits, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self(bits.cast_signed())
    }

    /// The mark as it is stored.
    pub fn number(self) -> i64 {
        self.0
    }
}

impl From<i64> for Mark {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

/// A place in the history of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The database's id.
    pub database: Arc<str>,
    /// The revision.
    pub revision: i64,
    /// Its mark. `None`: a control plane of an earlier version made it.
    pub mark: Option<Mark>,
}

/// What a database shows to who stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Its id.
    pub database: &'a str,
    /// Its latest revision.
    pub revision: i64,
    /// The mark that it has at the revision in question, if it has that revision and still knows its mark.
    pub mark: Option<Mark>,
}

impl Position {
    /// Whether the database has been here. Its id may be another since: that of who noticed a change that
    /// does not concern this place.
    ///
    /// A mark that is not kept any more counts as another one: who is so far behind cannot tell.
    pub fn is_in(&self, shown: Shown<'_>) -> bool {
        let reached = self.revision <= shown.revision;
        reached
            && match self.mark {
                Some(mark) => shown.mark == Some(mark),
                None => *self.database == *shown.database,
            }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A history: the marks of the revisions from 0 on.
    #[derive(Debug, Clone)]
    struct History(Vec<Mark>);

    impl History {
        fn grow(&mut self, revisions: usize) {
            self.0.extend((0..revisions).map(|_| Mark::random()));
        }

        fn shown(&self, to: &Position, kept: usize) -> Shown<'static> {
            let revision = usize::try_from(to.revision).unwrap();
            let oldest = self.0.len().saturating_sub(kept);
            Shown {
                database: "d",
                revision: i64::try_from(self.0.len()).unwrap() - 1,
                mark: self.0.get(revision).copied().filter(|_| revision >= oldest),
            }
        }
    }

    proptest! {
        /// Where two histories part, everybody who stands before that is of both, everybody behind it of one; who is
        /// too far behind is of none.
        #[test]
        fn who_stands_behind_the_fork_is_told_from_who_stands_before(
            common in 1_usize..20, lost in 0_usize..20, new in 0_usize..20, kept in 1_usize..60,
        ) {
            let mut before = History(Vec::new());
            before.grow(common);
            let mut after = before.clone();
            before.grow(lost);
            after.grow(new);
            for (revision, mark) in (0..).zip(&before.0) {
                let position = Position { database: "d".into(), revision, mark: Some(*mark) };
                let at = usize::try_from(revision).unwrap();
                let still_kept = |history: &History| at + kept >= history.0.len();
                prop_assert_eq!(position.is_in(before.shown(&position, kept)), still_kept(&before));
                let known = at < common && still_kept(&after);
                prop_assert_eq!(position.is_in(after.shown(&position, kept)), known);
            }
        }
    }

    #[test]
    fn a_revision_of_an_earlier_version_is_known_by_the_database_and_its_number() {
        let position = Position {
            database: "d".into(),
            revision: 7,
            mark: None,
        };
        let shown = |database, revision, mark| Shown {
            database,
            revision,
            mark,
        };
        assert!(position.is_in(shown("d", 7, None)));
        // Marked since, by the first of a version that does.
        assert!(position.is_in(shown("d", 9, Some(Mark::random()))));
        assert!(!position.is_in(shown("d", 6, None)));
        assert!(!position.is_in(shown("other", 9, None)));
    }
}
