//! How many TLS handshakes are under way at a time, and whose.
//!
//! One that is under way costs some ten kilobytes, and processor time. More wait, as no more than an open connection.
//! Whose turn it is next: that of the source with the fewest under way, and of that source the connection that came last,
//! which is the one most likely to be still there. While others wait, one that has stopped half way gives way, first of
//! the source that has the most. So ten thousand that stop half way keep nobody out for longer than a moment, wherever
//! they come from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::access::origin::Source;

/// At a time.
const MOST: usize = 256;

/// Who is under way and who waits.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    under_way: usize,
    sources: HashMap<Source, OfSource>,
    /// The sources that wait, in their turn: by how many they have under way, and who of them waits longest.
    waiting: BTreeSet<(usize, u64, Source)>,
    /// How many sources have so many under way.
    counts: BTreeMap<usize, usize>,
}

/// The connections of a source, by numbers that grow.
#[derive(Debug, Default)]
struct OfSource {
    under_way: Vec<u64>,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

impl OfSource {
    /// Its place among those that wait.
    fn place(&self, source: Source) -> Option<(usize, u64, Source)> {
        let (longest, _) = self.waiting.first_key_value()?;
        Some((self.under_way.len(), *longest, source))
    }
}

impl Queue {
    fn arrive(&mut self, source: Source, turn: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.change(source, |it| it.waiting.insert(number, turn));
        self.begin();
        number
    }

    fn leave(&mut self, source: Source, number: u64) {
        self.change(source, |it| {
            it.under_way.retain(|other| *other != number);
            it.waiting.remove(&number)
        });
        self.begin();
    }

    /// Gives those their turn for whom there is room.
    fn begin(&mut self) {
        while self.under_way < MOST {
            let Some((_, _, source)) = self.waiting.first().copied() else {
                return;
            };
            self.change(source, |it| {
                let (number, turn) = it.waiting.pop_last()?;
                // One that has gone meanwhile says so by its number in a moment.
                let _ = turn.send(());
                it.under_way.push(number);
                Some(())
            });
        }
    }

    /// Changes the connections of a source, and what goes by them.
    fn change<T>(&mut self, source: Source, change: impl FnOnce(&mut OfSource) -> T) {
        let of_source = self.sources.entry(source).or_default();
        let (before, place) = (of_source.under_way.len(), of_source.place(source));
        change(of_source);
        let (after, new_place) = (of_source.under_way.len(), of_source.place(source));
        if of_source.under_way.is_empty() && of_source.waiting.is_empty() {
            self.sources.remove(&source);
        }
        if let Some(place) = place {
            self.waiting.remove(&place);
        }
        self.waiting.extend(new_place);
        self.under_way = self.under_way + after - before;
        if before != after {
            *self.counts.entry(after).or_default() += 1;
            match self.counts.get_mut(&before) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.counts.remove(&before);
                }
            }
            // Those that have none are not counted.
            self.counts.remove(&0);
        }
    }

    /// Whether one that has stopped is to make room: somebody waits, and no source has more under way.
    fn is_to_give_way(&self, source: Source) -> bool {
        let own = self.sources.get(&source).map(|it| it.under_way.len());
        let most = self.counts.last_key_value().map(|(most, _)| *most);
        own == most && !self.waiting.is_empty()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<Queue>);

/// The turn of a connection, or its place in the queue, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    of: &'a Handshakes,
    source: Source,
    number: u64,
}

impl Handshakes {
    /// Waits for a turn.
    pub(super) async fn turn(&self, source: Source) -> Turn<'_> {
        let (sender, turn) = oneshot::channel();
        let number = self.queue().arrive(source, sender);
        let of = self;
        let place = Turn { of, source, number };
        // It is not dropped before it was sent to.
        let _ = turn.await;
        place
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that it is locked for panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Gives the turn to whoever waits for one, if this source is to give way. Whether it did.
    pub(super) fn gives_way(&self) -> bool {
        let mut queue = self.of.queue();
        let gives_way = queue.is_to_give_way(self.source);
        if gives_way {
            queue.leave(self.source, self.number);
        }
        gives_way
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.of.queue().leave(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn source(number: u32) -> Source {
        Source::of(Ipv4Addr::from_bits(number).into())
    }

    fn now<'a>(handshakes: &'a Handshakes, number: u32) -> Option<Turn<'a>> {
        handshakes.turn(source(number)).now_or_never()
    }

    #[test]
    fn no_more_are_under_way_than_may_be_and_who_goes_makes_room() {
        let handshakes = Handshakes::default();
        let mut turns: Vec<_> = (0..MOST).filter_map(|_| now(&handshakes, 1)).collect();
        assert_eq!(turns.len(), MOST);
        assert!(now(&handshakes, 2).is_none());
        turns.pop();
        assert!(now(&handshakes, 2).is_some());
        drop(turns);
        let queue = handshakes.queue();
        assert_eq!((queue.under_way, queue.sources.len()), (0, 0));
    }

    #[test]
    fn the_source_with_the_fewest_is_next_and_of_a_source_the_last_that_came() {
        let handshakes = Handshakes::default();
        let mut turns: Vec<_> = (0..MOST).filter_map(|_| now(&handshakes, 1)).collect();
        let mut waiting: Vec<_> = (0..3)
            .map(|_| Box::pin(handshakes.turn(source(1))))
            .collect();
        let mut other = Box::pin(handshakes.turn(source(2)));
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        assert!((&mut other).now_or_never().is_none());
        turns.pop();
        let _other = (&mut other).now_or_never().unwrap();
        turns.pop();
        assert!((&mut waiting[0]).now_or_never().is_none());
        let _last = (&mut waiting[2]).now_or_never().unwrap();
    }

    #[test]
    fn who_has_stopped_gives_way_to_those_who_wait_and_the_source_with_the_most_first() {
        let handshakes = Handshakes::default();
        let one = now(&handshakes, 2).unwrap();
        let many: Vec<_> = (1..MOST).filter_map(|_| now(&handshakes, 1)).collect();
        assert!(!many[0].gives_way(), "to nobody");
        let mut honest = Box::pin(handshakes.turn(source(3)));
        assert!((&mut honest).now_or_never().is_none());
        assert!(!one.gives_way(), "where another source has more");
        assert!(many[0].gives_way());
        assert!(!many[1].gives_way(), "where nobody waits any more");
        let _honest = honest.now_or_never().unwrap();
    }

    proptest! {
        /// Whatever comes and goes, nobody waits while there is room, and nothing is left behind.
        #[test]
        fn there_is_room_or_nobody_waits(steps in prop::collection::vec((0u32..5, 0usize..400, any::<bool>()), 1..900)) {
            let handshakes = Handshakes::default();
            let mut all = Vec::new();
            for (number, at, arrives) in steps {
                if arrives || all.is_empty() {
                    let mut turn = Box::pin(handshakes.turn(source(number)));
                    let taken = (&mut turn).now_or_never();
                    all.push((turn, taken));
                } else {
                    drop(all.swap_remove(at % all.len()));
                }
                let queue = handshakes.queue();
                let under_way: usize = queue.sources.values().map(|it| it.under_way.len()).sum();
                let waiting: usize = queue.sources.values().map(|it| it.waiting.len()).sum();
                prop_assert_eq!(under_way, queue.under_way);
                prop_assert_eq!(under_way + waiting, all.len());
                prop_assert!(under_way == MOST || waiting == 0);
                let most = queue.sources.values().map(|it| it.under_way.len()).max();
                prop_assert_eq!(queue.counts.keys().next_back().copied(), most.filter(|most| *most > 0));
                prop_assert_eq!(queue.counts.values().sum::<usize>(), queue.sources.values().filter(|it| !it.under_way.is_empty()).count());
                let waits = queue.sources.iter().filter_map(|(source, it)| it.place(*source)).collect::<BTreeSet<_>>();
                prop_assert_eq!(&queue.waiting, &waits);
            }
            drop(all);
            prop_assert!(handshakes.queue().sources.is_empty());
        }
    }
}
