//! The thread that makes changes: many at once, with one wait for the disk.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use ipnet::Ipv4Net;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Applied, Change, Done, IpamError, Pool, Refusal, journal::Journal, leases::Leases};

/// How many calls wait at most to be taken; more wait to be let in.
pub(crate) const QUEUE: usize = 1024;
/// How many calls share one wait for the disk.
const GROUP: usize = 512;

/// What callers and the committer share.
pub(crate) struct Shared {
    /// What is committed, which readers see.
    committed: RwLock<Committed>,
    /// What was last said to be in use without a lease, until the committer takes it.
    pub(crate) occupied: Mutex<Option<BTreeMap<Ipv4Addr, String>>>,
    /// How many changes were committed.
    pub(crate) changes: watch::Sender<u64>,
    /// Since when nothing new is leased, in seconds since 1970.
    pub(crate) drained: Mutex<Option<u64>>,
}

/// What is on the disk.
pub(crate) struct Committed {
    pub(crate) subnet: Option<Ipv4Net>,
    pub(crate) leases: Leases,
}

impl Shared {
    pub(crate) fn new(pool: &Pool) -> Self {
        let committed = Committed {
            subnet: pool.subnet(),
            leases: pool.shared_leases().clone(),
        };
        Self {
            committed: RwLock::new(committed),
            occupied: Mutex::new(None),
            changes: watch::Sender::new(0),
            drained: Mutex::new(None),
        }
    }

    pub(crate) fn committed(&self) -> RwLockReadGuard<'_, Committed> {
        self.committed
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, applied: &[Applied]) {
        let mut committed = self
            .committed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for change in applied.iter().map(Applied::change) {
            match change {
                Change::Subnet(subnet) => {
                    *committed = Committed {
                        subnet: Some(*subnet),
                        leases: Leases::default(),
                    };
                }
                Change::Leased(lease) => committed.leases.insert(Arc::clone(lease)),
                Change::Released(address) => committed.leases.remove(*address),
            }
        }
        drop(committed);
        self.changes
            .send_modify(|count| *count += applied.len() as u64);
    }
}

/// What a caller sends.
pub(crate) enum Message {
    /// A call of the pool.
    Call(Box<dyn Job>),
    /// The end. It is answered when all calls before it are.
    Close(oneshot::Sender<()>),
}

/// A call that waits for its answer.
pub(crate) trait Job: Send {
    /// Whether nobody waits for the answer any longer.
    fn is_abandoned(&self) -> bool;
    /// Calls the pool and keeps the answer.
    fn run(&mut self, pool: &mut Pool, now: u64) -> Option<Applied>;
    /// Gives the answer, or this error instead.
    fn answer(self: Box<Self>, error: Option<IpamError>);
}

/// A call of one kind.
pub(crate) struct Call<F, T> {
    call: F,
    result: Option<Result<T, Refusal>>,
    answer: oneshot::Sender<Result<T, IpamError>>,
}

impl<F, T> Call<F, T> {
    pub(crate) fn new(call: F) -> (Self, oneshot::Receiver<Result<T, IpamError>>) {
        let (answer, receiver) = oneshot::channel();
        let call = Self {
            call,
            result: None,
            answer,
        };
        (call, receiver)
    }
}

impl<F, T> Job for Call<F, T>
where
    F: FnMut(&mut Pool, u64) -> Result<Done<T>, Refusal> + Send,
    T: Send,
{
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(&mut self, pool: &mut Pool, now: u64) -> Option<Applied> {
        let (result, applied) = match (self.call)(pool, now) {
            Ok(done) => (Ok(done.answer), done.applied),
            Err(refusal) => (Err(refusal), None),
        };
        self.result = Some(result);
        applied
    }

    fn answer(self: Box<Self>, error: Option<IpamError>) {
        let result = match (error, self.result) {
            (Some(error), _) => Err(error),
            (None, Some(result)) => result.map_err(IpamError::Refused),
            (None, None) => Err(IpamError::Closed),
        };
        // Whoever has gone in the meantime asks again.
        let _ = self.answer.send(result);
    }
}

/// The thread's own.
pub(crate) struct Committer {
    pub(crate) pool: Pool,
    pub(crate) journal: Journal,
    pub(crate) shared: Arc<Shared>,
}

impl Committer {
    /// Works until everybody has gone or somebody closes the queue.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut messages = Vec::new();
        while queue.blocking_recv_many(&mut messages, GROUP) > 0 {
            let mut group = Vec::new();
            let mut closing = None;
            for message in messages.drain(..) {
                match message {
                    Message::Call(job) if closing.is_none() => group.push(job),
                    // To be told that it came too late.
                    Message::Call(job) => job.answer(Some(IpamError::Closed)),
                    Message::Close(done) => closing = Some(done),
                }
            }
            self.commit(group);
            if let Some(done) = closing {
                // From here on nobody is let in, and what waits is told when it is dropped.
                drop(queue);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Makes the calls of a group and answers them, with one wait for the disk.
    pub(crate) fn commit(&mut self, group: Vec<Box<dyn Job>>) {
        // Said before a call was sent, it counts for that call: it is taken after the group.
        let occupied = &self.shared.occupied;
        let occupied = occupied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(occupied) = occupied {
            self.pool.occupy(occupied);
        }
        let now = now();
        let mut waiting = Vec::with_capacity(group.len());
        let mut applied = Vec::new();
        for mut job in group {
            if job.is_abandoned() {
                continue;
            }
            if let Some(change) = job.run(&mut self.pool, now) {
                self.journal.stage(change.change(), self.pool.subnet());
                applied.push(change);
            }
            waiting.push(job);
        }
        if !applied.is_empty()
            && let Err(error) = self.journal.commit(&self.pool)
        {
            for change in applied.into_iter().rev() {
                self.pool.undo(change);
            }
            self.refuse(waiting, now, &IpamError::Disk(error));
            return;
        }
        if !applied.is_empty() {
            self.shared.publish(&applied);
        }
        for job in waiting {
            job.answer(None);
        }
        self.journal.compact(&self.pool);
    }

    /// Answers calls that could not be committed. Those that would have changed nothing, had they
    /// come alone, are answered as if they had.
    fn refuse(&mut self, waiting: Vec<Box<dyn Job>>, now: u64, error: &IpamError) {
        for mut job in waiting {
            let applied = job.run(&mut self.pool, now);
            let error = applied.is_some().then(|| error.clone());
            if let Some(applied) = applied {
                self.pool.undo(applied);
            }
            job.answer(error);
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Granted, journal,
        replay::tests::{owner, request, subnet},
    };

    type Answer<T> = oneshot::Receiver<Result<T, IpamError>>;

    fn allocation(number: u8) -> (Box<dyn Job>, Answer<Granted>) {
        let request = request(number, false, false);
        let (call, answer) = Call::new(move |pool: &mut Pool, now| pool.allocate(&request, now));
        (Box::new(call), answer)
    }

    fn committer(directory: &std::path::Path) -> Committer {
        let (journal, mut pool) = journal::open(directory, "this").unwrap();
        pool.set_subnet(subnet(1)).unwrap();
        let shared = Arc::new(Shared::new(&pool));
        Committer {
            pool,
            journal,
            shared,
        }
    }

    #[test]
    fn whoever_has_gone_before_its_turn_takes_no_address() {
        let dir = tempfile::tempdir().unwrap();
        let mut committer = committer(dir.path());
        let ((one, gone), (another, mut answer)) = (allocation(1), allocation(2));
        drop(gone);
        committer.commit(vec![one, another]);
        let lease = answer.try_recv().unwrap().unwrap().lease;
        assert_eq!(lease.address.to_string(), "10.42.1.2");
        assert_eq!(committer.pool.lease_of(&owner(1)), None);
    }

    #[test]
    fn calls_of_one_group_see_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut committer = committer(dir.path());
        let ((one, mut first), (same, mut second)) = (allocation(1), allocation(1));
        let (another, mut third) = allocation(2);
        committer.commit(vec![one, same, another]);
        let [first, second, third] =
            [&mut first, &mut second, &mut third].map(|it| it.try_recv().unwrap().unwrap());
        assert_eq!(first.lease, second.lease);
        assert!(first.new && !second.new && third.new);
        assert_ne!(first.lease.address, third.lease.address);
        // A change for each lease.
        assert_eq!(*committer.shared.changes.borrow(), 2);
    }
}
