//! Who looks at what becomes of packets.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use mesh_layout::PacketEvent;
use tokio::sync::mpsc;

/// What is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// By a program.
    Packet(PacketEvent),
    /// What a rule of ours dropped.
    Rule(RuleDrops),
}

/// Packets that a rule of ours has dropped since it was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleDrops {
    /// `inet` or `bridge`.
    pub(crate) family: &'static str,
    pub(crate) chain: String,
    /// As nft writes it; empty where it is not known.
    pub(crate) rule: String,
    pub(crate) packets: u64,
}

/// One who looks.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    events: mpsc::Sender<Told>,
    missed: Arc<AtomicU64>,
}

impl Listener {
    /// One who has room for so many events that were not read yet, and where it reads them. What it misses is counted.
    pub(crate) fn new(room: usize) -> (Self, mpsc::Receiver<Told>) {
        let (events, receiver) = mpsc::channel(room);
        let missed = Arc::default();
        (Self { events, missed }, receiver)
    }

    /// How many events it has missed.
    pub(crate) fn missed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.missed)
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Tells, unless there is no room: nobody waits for one who looks.
    pub(crate) fn tell(&self, told: Told) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(told) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Those who look, shared by who adds them and who tells them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listeners(Arc<Mutex<Vec<Listener>>>);

impl Listeners {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Listener>> {
        // Whoever panicked left a whole list behind: it is changed by single calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, and forgets those who are gone.
    pub(crate) fn add(&self, listener: Listener) {
        let mut all = self.all();
        all.retain(|listener| !listener.is_gone());
        all.push(listener);
    }

    /// Tells all, and forgets those who are gone.
    pub(crate) fn tell(&self, told: &Told) {
        let mut all = self.all();
        all.retain(|listener| !listener.is_gone());
        for listener in all.iter() {
            listener.tell(told.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(packets: u64) -> Told {
        Told::Rule(RuleDrops {
            family: "inet",
            chain: "routed".to_owned(),
            rule: String::new(),
            packets,
        })
    }

    #[test]
    fn one_who_does_not_read_misses_what_has_no_room_and_keeps_nobody_from_hearing() {
        let listeners = Listeners::default();
        let ((slow, mut from_slow), (quick, mut from_quick)) = (Listener::new(2), Listener::new(8));
        let missed = slow.missed();
        listeners.add(slow);
        listeners.add(quick);
        for number in 0..5 {
            listeners.tell(&told(number));
        }
        assert_eq!(missed.load(Ordering::Relaxed), 3);
        for number in 0..2 {
            assert_eq!(from_slow.try_recv().unwrap(), told(number));
        }
        assert!(from_slow.try_recv().is_err());
        for number in 0..5 {
            assert_eq!(from_quick.try_recv().unwrap(), told(number));
        }
    }

    #[test]
    fn one_who_is_gone_is_forgotten() {
        let listeners = Listeners::default();
        let (gone, receiver) = Listener::new(1);
        listeners.add(gone);
        drop(receiver);
        listeners.tell(&told(1));
        assert!(listeners.all().is_empty());
    }
}
