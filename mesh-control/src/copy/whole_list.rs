//! The text of the whole list, which all who ask for it share.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;

use super::feed::Place;

/// How long a text of the whole list is handed out: its `last_heartbeat`s age, which are for people. Whatever else it
/// says is of the moment.
pub(super) const LIFETIME: Duration = Duration::from_secs(1);

/// What the list is one of: while it stays the same, so does what the list says, but for `last_heartbeat`s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// Where the roster stands.
    pub(super) place: Place,
    /// [`crate::cluster::liveness::Liveness::version`]
    pub(super) version: u64,
}

#[derive(Debug)]
struct Made {
    of: State,
    at: Instant,
    text: Bytes,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct WholeList(Mutex<Option<Made>>);

impl WholeList {
    /// The text that is kept, or else the one that `make` makes at `now`, which is kept then. `make` says as well which
    /// state it is of: `state` may be over by then. Others who ask wait meanwhile, and share it.
    pub(super) fn get<E>(
        &self,
        state: State,
        now: Instant,
        make: impl FnOnce() -> Result<(State, Bytes), E>,
    ) -> Result<Bytes, E> {
        // A panic while it was locked can only have come from `make`, before anything was changed.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current =
            |made: &&Made| made.of == state && now.saturating_duration_since(made.at) < LIFETIME;
        if let Some(made) = kept.as_ref().filter(is_current) {
            return Ok(made.text.clone());
        }
        // One of the two at a time.
        *kept = None;
        let (of, text) = make()?;
        *kept = Some(Made {
            of,
            at: now,
            text: text.clone(),
        });
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn the_list_is_made_once_while_nothing_changes_and_not_for_longer_than_its_lifetime() {
        let (list, made) = (WholeList::default(), Cell::new(0));
        let start = Instant::now();
        let ask = |revision, version, later| {
            let place = Place::at(revision);
            let state = State { place, version };
            let text = list.get(state, start + later, || {
                made.set(made.get() + 1);
                Ok::<_, Infallible>((state, Bytes::from(format!("{state:?}"))))
            });
            assert_eq!(text.unwrap(), format!("{state:?}"));
            made.get()
        };
        let none = Duration::ZERO;
        assert_eq!([ask(1, 1, none), ask(1, 1, none)], [1, 1]);
        assert_eq!([ask(2, 1, none), ask(2, 1, none)], [2, 2]);
        assert_eq!([ask(2, 2, none), ask(2, 2, none)], [3, 3]);
        let (before, after) = (LIFETIME - Duration::from_millis(1), LIFETIME);
        assert_eq!([ask(2, 2, before), ask(2, 2, after)], [3, 4]);
    }

    #[test]
    fn a_list_of_a_later_state_than_was_asked_for_is_for_those_who_ask_for_that() {
        let (list, now) = (WholeList::default(), Instant::now());
        let [early, late] = [1, 2].map(|revision| State {
            place: Place::at(revision),
            version: 0,
        });
        let make = |of, text: &'static str| move || Ok::<_, Infallible>((of, Bytes::from(text)));
        let first = list.get(early, now, make(late, "late"));
        assert_eq!(first.unwrap(), "late");
        assert_eq!(list.get(late, now, make(late, "again")).unwrap(), "late");
        assert_eq!(list.get(early, now, make(late, "again")).unwrap(), "again");
    }
}
