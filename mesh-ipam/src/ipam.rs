//! The durable registry: a pool and its journal, for many callers at once.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use ipnet::Ipv4Net;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    DiskError, Done, Endpoint, Granted, Lease, OpenError, Owner, Pool, Refusal, Request, Usage,
    committer::{Call, Committer, Message, QUEUE, Shared},
    drain::Mark,
    journal::{self, Journal},
    subnet,
};

/// Why a call did not do what it was to do. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum IpamError {
    /// The pool's rules are against it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk did not take it.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Nobody is there to do it.
    #[error("the leases of this node were closed: ask the runtime that has them now")]
    Closed,
}

/// The leases of a node: a [`Pool`] whose every change is on the disk before the caller is told.
///
/// Clones share one registry. A call that changes something waits for the disk, together with all
/// that others have asked for in the meantime: one thread makes the changes, and one `fdatasync`
/// confirms up to 512 of them. The wait is as long as the disk takes; whoever has less patience puts
/// a deadline around the call. A call that is given up may have been made nevertheless, or be made
/// still; the same call again finds out.
///
/// Reading waits for no disk. It shows what is on the disk, and what a caller was told is shown to
/// whoever reads afterwards.
///
/// The thread ends, and has been joined, when the last clone was dropped or [`Ipam::close`] returned.
/// Dropping the last waits for what was asked for already.
/// A directory is used by one registry at a time: whoever opens it sees to that.
#[derive(Clone)]
pub struct Ipam(Arc<Handle>);

struct Handle {
    /// There until it is dropped.
    queue: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
    /// By what the next life knows that nothing new is leased; `None`: it has no directory.
    mark: Option<Mark>,
}

impl Ipam {
    /// Opens the registry in `directory`, file `leases`, which are made if there are none. `life` names
    /// the host's network namespace: when it is another one than before, leases that were bound to
    /// that one rest, and the others have no endpoint. It blocks for as long as the disk takes.
    ///
    /// Of a damaged file all lines that are whole count, and one of another version is set aside; the
    /// log tells. A full disk is no error: calls fail until there is room.
    ///
    /// # Errors
    ///
    /// The directory or the file cannot be used.
    pub fn open(directory: &Path, life: &str) -> Result<Self, OpenError> {
        let (journal, pool) = journal::open(directory, life)?;
        Self::start_in(directory, journal, pool)
    }

    /// Opens the registry in `directory` to read it, because it cannot be opened to write for this reason: what
    /// containers have they keep, and every change is refused with the reason. Nothing is made or written.
    ///
    /// # Errors
    ///
    /// The file cannot be read either.
    pub fn open_to_read(directory: &Path, life: &str, why: &io::Error) -> Result<Self, OpenError> {
        let opened = journal::open_to_read(directory, life, why);
        let (journal, pool) = opened.map_err(|source| OpenError::File {
            action: "read leases in",
            path: directory.to_owned(),
            source,
        })?;
        Self::start_in(directory, journal, pool)
    }

    fn start_in(directory: &Path, journal: Journal, mut pool: Pool) -> Result<Self, OpenError> {
        let mark = Mark::in_directory(directory);
        let drained = mark.read().map_err(|source| OpenError::File {
            action: "look for the mark of a drained node in",
            path: directory.to_owned(),
            source,
        })?;
        pool.set_drained(drained.is_some());
        let started = Self::begin(journal, pool, Some(mark))?;
        started.note_drained(drained);
        Ok(started)
    }

    /// Starts the thread of a journal that tells of `pool`.
    #[cfg(test)]
    pub(crate) fn start(journal: Journal, pool: Pool) -> Result<Self, OpenError> {
        Self::begin(journal, pool, None)
    }

    fn begin(journal: Journal, pool: Pool, mark: Option<Mark>) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::new(&pool));
        let committer = Committer {
            pool,
            journal,
            shared: Arc::clone(&shared),
        };
        let (queue, receiver) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("leases".to_owned())
            .spawn(move || committer.run(receiver))
            .map_err(OpenError::Thread)?;
        Ok(Self(Arc::new(Handle {
            queue: Some(queue),
            thread: Mutex::new(Some(thread)),
            shared,
            mark,
        })))
    }

    /// Gives the node its subnet. The same again is a success; another one is taken while nothing is
    /// leased, and then no address of it was ever leased.
    ///
    /// # Errors
    ///
    /// [`Refusal::Subnet`], [`Refusal::SubnetInUse`], and those of the disk.
    pub async fn set_subnet(&self, subnet: Ipv4Net) -> Result<(), IpamError> {
        self.call(move |pool, _| pool.set_subnet(subnet)).await
    }

    /// Leases an address, or confirms the one that the owner holds.
    ///
    /// # Errors
    ///
    /// As [`Pool::allocate`], and those of the disk. A node that is drained ([`Self::set_drained`]) gets nothing new.
    pub async fn allocate(&self, request: Request) -> Result<Granted, IpamError> {
        self.call(move |pool, now| pool.allocate(&request, now))
            .await
    }

    /// Ends the lease of an owner and returns it. An owner that holds nothing is a success.
    ///
    /// # Errors
    ///
    /// [`Refusal::HoldsAnother`] if `address` is given and is not what the owner holds, and those of
    /// the disk.
    pub async fn release(
        &self,
        owner: &Owner,
        address: Option<Ipv4Addr>,
    ) -> Result<Option<Lease>, IpamError> {
        let owner = owner.clone();
        self.call(move |pool, _| pool.release(&owner, address))
            .await
    }

    /// Replaces the endpoint of an owner's lease, or takes it away, and returns the lease.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoLease`], those that concern ports, and those of the disk.
    pub async fn set_endpoint(
        &self,
        owner: &Owner,
        endpoint: Option<Endpoint>,
    ) -> Result<Lease, IpamError> {
        let owner = owner.clone();
        self.call(move |pool, _| pool.set_endpoint(&owner, endpoint.clone()))
            .await
    }

    /// Has it lease nothing new, or again, also in its next life: that is on the disk when this returns. Who has something
    /// keeps it, and may give it back. Repeating it is a success. Since when nothing new is leased, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// Those of the disk; it is as it was then.
    pub async fn set_drained(&self, drained: bool) -> Result<Option<u64>, IpamError> {
        let ipam = Arc::clone(&self.0.shared);
        let mark = self.0.mark.clone();
        // On the thread that leases: whoever asks afterwards is answered by it.
        let set = self.call(move |pool, now| {
            let before = *lock(&ipam.drained);
            let set = match (&mark, drained, before) {
                (_, true, Some(since)) => Ok(Some(since)),
                (Some(mark), true, None) => mark.make(now).map(|()| Some(now)),
                (Some(mark), false, _) => mark.remove().map(|()| None),
                (None, true, None) => Ok(Some(now)),
                (None, false, _) => Ok(None),
            };
            if let Ok(since) = &set {
                pool.set_drained(drained);
                *lock(&ipam.drained) = *since;
            }
            Ok(Done {
                answer: set,
                applied: None,
            })
        });
        Ok(set.await??)
    }

    /// Since when nothing new is leased, in seconds since 1970; `None`: something is.
    pub fn drained(&self) -> Option<u64> {
        *lock(&self.0.shared.drained)
    }

    fn note_drained(&self, since: Option<u64>) {
        *lock(&self.0.shared.drained) = since;
    }

    /// Says which addresses are in use without a lease, with the names of their ports, instead of
    /// those that were said before. No call that is made afterwards is granted any of them. This is
    /// not kept on the disk.
    pub fn occupy(&self, held: BTreeMap<Ipv4Addr, String>) {
        let occupied = &self.0.shared.occupied;
        *occupied.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    /// All leases, by address.
    pub fn leases(&self) -> Vec<Lease> {
        // Held for as long as it takes to count them, not to copy them.
        let leases: Vec<Arc<Lease>> = self.0.shared.committed().leases.iter().cloned().collect();
        leases.iter().map(|lease| Lease::clone(lease)).collect()
    }

    /// The lease of an owner.
    pub fn lease_of(&self, owner: &Owner) -> Option<Lease> {
        let lease = self.0.shared.committed().leases.of(owner).cloned();
        lease.map(|lease| Lease::clone(&lease))
    }

    /// The lease of an address.
    pub fn lease_at(&self, address: Ipv4Addr) -> Option<Lease> {
        let lease = self.0.shared.committed().leases.at(address).cloned();
        lease.map(|lease| Lease::clone(&lease))
    }

    /// How much of the subnet is used.
    pub fn usage(&self) -> Usage {
        let committed = self.0.shared.committed();
        Usage {
            subnet: committed.subnet,
            capacity: committed.subnet.map_or(0, subnet::capacity),
            leased: committed.leases.len(),
        }
    }

    /// A number that rises with every change that was committed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.shared.changes.subscribe()
    }

    /// Ends the registry when all calls that were made before are answered; later ones fail. The
    /// thread has ended when this returns.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if let Some(queue) = &self.0.queue
            && queue.send(Message::Close(done)).await.is_ok()
        {
            // An error means that somebody else closed it.
            let _ = closed.await;
        }
        self.0.join();
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnMut(&mut Pool, u64) -> Result<Done<T>, Refusal> + Send + 'static,
    ) -> Result<T, IpamError> {
        let (call, answer) = Call::new(call);
        let queue = self.0.queue.as_ref().ok_or(IpamError::Closed)?;
        queue
            .send(Message::Call(Box::new(call)))
            .await
            .map_err(|_| IpamError::Closed)?;
        answer.await.unwrap_or(Err(IpamError::Closed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Ipam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ipam").field(&self.usage()).finish()
    }
}

impl Handle {
    fn join(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!(name: "thread-writes-leases-panicked", "the thread that writes leases has panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The thread goes when nobody can send it anything.
        self.queue = None;
        self.join();
    }
}
