//! Whether another replica has the key of the authority that signs: asked by one that is about to take it for lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Replica;
use super::heartbeats::{Told, read};
use crate::registry::Registry;
use crate::store::{Message, StoreError};
use crate::write::batch::{BATCH_DEADLINE, within};

/// How long answers are awaited: long enough to hear of a replica of an earlier version, which answers nothing, but tells
/// something every five seconds.
const AWAITED: Duration = Duration::from_secs(8);

/// What others say, or do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// Nobody else has it.
    None,
    /// Somebody has it.
    Sign,
    /// So many run, and do not say.
    Silent(usize),
    /// Nobody has it, and so many ask as well: they lack it, and may be about to do what this one is.
    Ask(usize),
}

impl Registry {
    /// Asks the other replicas. Where there can be none, nobody is.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer, or the others cannot be heard.
    pub(crate) async fn others_that_sign(&self) -> Result<Others, Arc<StoreError>> {
        let Some(replica) = &self.replica else {
            return Ok(Others::None);
        };
        let Some(mut listener) = within(BATCH_DEADLINE, self.store.listen()).await? else {
            return Ok(Others::None);
        };
        let question = format!("{} who-signs", replica.name);
        within(BATCH_DEADLINE, self.store.tell_beats(&question)).await?;
        let until = Instant::now() + AWAITED;
        // Whether each that was heard has said that it does not have it.
        let mut heard: HashMap<String, bool> = HashMap::new();
        let mut asking: HashSet<String> = HashSet::new();
        while let Ok(message) = tokio::time::timeout_at(until, listener.next()).await {
            let payload = match message {
                Some(Message::Beats(payload)) => payload,
                Some(Message::Changed) => continue,
                None => {
                    let why = "the connection for messages ended".to_owned();
                    return Err(Arc::new(StoreError::Unreachable(why)));
                }
            };
            match read(&payload) {
                Some((sender, _)) if sender == replica.name => {}
                Some((_, Told::Signs(true))) => return Ok(Others::Sign),
                Some((sender, Told::Signs(false))) => {
                    heard.insert(sender.to_owned(), true);
                }
                Some((sender, Told::WhoSigns)) => {
                    asking.insert(sender.to_owned());
                }
                None => {}
                Some((sender, _)) => {
                    heard.entry(sender.to_owned()).or_default();
                }
            }
        }
        let silent = heard.iter().filter(|(sender, has_said)| {
            // Who asks lacks it.
            !**has_said && !asking.contains(*sender)
        });
        Ok(match (silent.count(), asking.len()) {
            (0, 0) => Others::None,
            (0, asking) => Others::Ask(asking),
            (silent, _) => Others::Silent(silent),
        })
    }

    pub(super) async fn say_whether_it_signs(&self, replica: &Replica) {
        // Of the database as it is now, which may have gone back a moment ago. Who asks takes silence for the worse.
        if self.read_credentials().await.is_err() {
            return;
        }
        let signs = self.credentials.signs_in_database();
        let word = match signs.is_some_and(|signs| self.authorities.find(signs).is_some()) {
            true => "signs",
            false => "cannot-sign",
        };
        let answer = format!("{} {word}", replica.name);
        // Who asks takes silence for the worse.
        let _ = within(BATCH_DEADLINE, self.store.tell_beats(&answer)).await;
    }
}
