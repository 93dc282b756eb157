//! One of several control planes on one PostgreSQL database.
//!
//! They are equal, and keep nothing that another needs. Allocations follow one another by the lock of
//! the row `cluster`. What changed is told by NOTIFY, and read every second whatever was told.
//!
//! Heartbeats arrive at any replica, which tells the others within a quarter of a second (`heartbeats`); each keeps them in
//! memory, by its own monotonic clock, so that no machine's wall clock matters. Whoever finds a node
//! silent turns it down only after a `fence`, by which it has heard every heartbeat that any replica told of
//! before. Without the database there is no fence, and nobody is turned down; and after a gap in what was told
//! everybody has a full timeout again.
//!
//! A database that went back is found by each of them, when it reads or before it writes (see
//! [`crate::cluster::history`]). What it remembers and the database does not know is then kept for who holds it. One that
//! has just started remembers nothing, and one that lost the database for a moment may not have heard of the last
//! leases; so it gives the others `START_HOLD` to find out before it leases anything anew.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cluster::settings::Settings;
use crate::registry::{ChangeError, Registry};
use crate::store::{Listener, Message, Server, StoreError};
use crate::write::batch::{BATCH_DEADLINE, within};

mod fence;
mod heartbeats;
mod who_signs;

pub(crate) use who_signs::Others;

/// How much longer than its timeout a node may be silent: so long may the last heartbeat be on its way
/// from another replica. Together with the interval of telling it leaves a node down within a second.
pub(crate) const GRACE: Duration = Duration::from_millis(450);

/// How often what changed is read, although nobody told of it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// After so long without an answer of the database, clients are sent to another replica.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// After its start, and after it lost the database for a moment, a replica leases no subnet anew for so long: twice the
/// time within which any other that runs reads the database.
const START_HOLD: Duration = Duration::from_secs(2);

/// Between attempts to reach the database.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Messages that were received and not yet taken in.
const MOST_MESSAGES: usize = 1024;

/// What a replica knows of its connection to the others.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Its name in messages: random, made at its start.
    name: String,
    /// When the database answered last.
    contact: Mutex<Instant>,
    fences: AtomicU64,
    /// The last fence that came back.
    fence: watch::Sender<u64>,
    /// Whether it is said that silent nodes cannot be turned down.
    cannot_turn_down: AtomicBool,
    /// Which server it hears, and since when. `None`: none.
    hears: Mutex<Option<(Server, Instant)>>,
    /// Since when the database was found without its tables.
    empty_since: Mutex<Option<Instant>>,
    /// Whether somebody wants to know if this replica has the key of the authority that signs.
    asked_who_signs: AtomicBool,
    /// Other settings than this replica's, if another was started with them since.
    outvoted: Mutex<Option<Settings>>,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            name: uuid::Uuid::new_v4().simple().to_string(),
            contact: Mutex::new(Instant::now()),
            fences: AtomicU64::new(0),
            fence: watch::Sender::new(0),
            cannot_turn_down: AtomicBool::new(false),
            hears: Mutex::default(),
            empty_since: Mutex::default(),
            asked_who_signs: AtomicBool::new(false),
            outvoted: Mutex::default(),
        }
    }

    /// How long it leases no subnet anew, because it has heard the others for a moment only, or does not hear them on
    /// the server that it writes to.
    pub(crate) fn hold(&self, writes_to: Server) -> Option<Duration> {
        let hears = *self.hears.lock().unwrap_or_else(PoisonError::into_inner);
        let heard_for = match hears {
            Some((server, since)) if server == writes_to => since.elapsed(),
            _ => Duration::ZERO,
        };
        let rest = START_HOLD.saturating_sub(heard_for);
        (!rest.is_zero()).then_some(rest)
    }

    fn hears(&self, server: Option<Server>) {
        let hears = server.map(|server| (server, Instant::now()));
        *self.hears.lock().unwrap_or_else(PoisonError::into_inner) = hears;
    }

    /// How long the database has been found without its tables, of which this is one more time.
    pub(crate) fn empty_for(&self) -> Duration {
        let mut since = self
            .empty_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed()
    }

    /// The database was found with its tables.
    pub(crate) fn is_filled(&self) {
        *self
            .empty_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes note of the settings that the database has: those of whoever started last.
    pub(crate) fn compare(&self, given: Settings, current: Settings) {
        let other = Some(current).filter(|current| *current != given);
        let mut outvoted = self.outvoted.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *outvoted, other) != other
            && let Some(current) = other
        {
            let error = StoreError::OtherSettings { given, current };
            error!(name: "replica-refuses-clients-they-ask", %error, "this replica refuses its clients, so that they ask another one");
        }
    }

    fn outvoted(&self) -> Option<Settings> {
        *self.outvoted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_contact(&self) {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago what the others do was read last.
    fn lag(&self) -> Duration {
        let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        contact.elapsed()
    }

    fn is_lost(&self) -> bool {
        self.lag() > LOST_AFTER
    }
}

impl Registry {
    /// Follows what the other replicas do, until `stop`. Does nothing where there are none.
    pub async fn follow_replicas(self: Arc<Self>, stop: CancellationToken) {
        let Some(replica) = &self.replica else {
            return stop.cancelled().await;
        };
        let mut reported = false;
        loop {
            let followed = tokio::select! {
                () = stop.cancelled() => return,
                followed = self.follow(replica, &mut reported) => followed,
            };
            replica.hears(None);
            if !std::mem::replace(&mut reported, true) {
                let error = followed.err().map(|error| error.to_string());
                warn!(name: "connection-postgresql-lost",
                    error,
                    "the connection to PostgreSQL is lost; no node is turned down meanwhile"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
            }
        }
    }

    /// Ends when the connection does.
    async fn follow(&self, replica: &Replica, reported: &mut bool) -> Result<(), Arc<StoreError>> {
        let Some(listener) = within(BATCH_DEADLINE, self.store.listen()).await? else {
            return Ok(());
        };
        // In this order: what is told from here on is heard, what was told before is read.
        self.try_catch_up().await?;
        self.put_back_credentials().await?;
        self.copy
            .memory()
            .liveness
            .give_full_timeout(Instant::now());
        replica.has_contact();
        replica.hears(Some(listener.server()));
        if std::mem::take(reported) {
            info!(name: "connected-postgresql-again", "connected to PostgreSQL again; every node has a full timeout from now");
        }
        let (sender, mut messages) = mpsc::channel(MOST_MESSAGES);
        // Its own task, because a message half received must not be given up for the poll.
        let mut receiving = JoinSet::new();
        receiving.spawn(receive(listener, sender));
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let deaf = self.hear_itself(replica);
        tokio::pin!(deaf);
        loop {
            let mut changed = false;
            tokio::select! {
                // What came is taken before somebody complains that it did not.
                biased;
                _ = poll.tick() => changed = true,
                message = messages.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    changed |= self.take_message(replica, message);
                    while let Ok(message) = messages.try_recv() {
                        changed |= self.take_message(replica, message);
                    }
                }
                error = &mut deaf => return Err(Arc::new(error)),
            }
            if changed {
                self.try_catch_up().await?;
                self.put_back_credentials().await?;
                replica.has_contact();
            }
        }
    }

    /// Refuses when this replica tells nodes other settings than the one that started last, so that its clients ask
    /// that one.
    fn check_settings(&self) -> Result<(), ChangeError> {
        let Some(current) = self.replica.as_ref().and_then(Replica::outvoted) else {
            return Ok(());
        };
        let given = self.store.settings();
        let error = StoreError::OtherSettings { given, current };
        Err(ChangeError::Store(Arc::new(error)))
    }

    /// Refuses when this replica has lost the database, or has other settings than the one that started last.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Store`].
    pub(crate) fn check_contact(&self) -> Result<(), ChangeError> {
        self.check_settings()?;
        let lost = self.replica.as_ref().is_some_and(Replica::is_lost);
        if lost {
            let why = "no answer for some seconds; ask another replica meanwhile".to_owned();
            return Err(ChangeError::Store(Arc::new(StoreError::Unreachable(why))));
        }
        Ok(())
    }

    /// How long ago what other replicas do was read last; `None`: there can be none.
    pub(crate) fn lag(&self) -> Option<Duration> {
        self.replica.as_ref().map(Replica::lag)
    }

    /// Reads what other replicas may have changed a moment ago; where there are none, there is nothing.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Store`], when this replica has lost the database, or has other settings than others. If it does not answer just
    /// now, what is in memory is at most some seconds old.
    pub async fn refresh(&self) -> Result<(), ChangeError> {
        let Some(replica) = &self.replica else {
            return Ok(());
        };
        if !replica.is_lost() && self.try_catch_up().await.is_ok() {
            return self.check_settings();
        }
        self.check_contact()
    }
}

async fn receive(mut listener: Listener, messages: mpsc::Sender<Message>) {
    while let Some(message) = listener.next().await {
        if messages.send(message).await.is_err() {
            return;
        }
    }
}
