//! A database that went back to before an authority took the place of another: the one that signed is put back, and nodes'
//! certificates go on.
//!
//! The key of the one that signs by the database was dropped everywhere when the rotation was finished; where another control
//! plane has it, it is this host that is behind, and nothing is put back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use mesh_credentials::key_digest::KeyDigest;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::audit::Doer;
use super::authorities_error::AuthoritiesError;
use super::filed_states::states_in;
use super::memory::{GoneBack, is_from_before, signer};
use crate::access::mandate::Mandate;
use crate::registry::{Registry, unix_seconds};
use crate::replica::Others;
use crate::store::{AuthorityState, StoreError, StoredAuthority};
use crate::write::batch::{BATCH_DEADLINE, within};

/// How long a control plane without the key waits until another one has put it back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between attempts, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Between attempts: without an end of their own, for they end with what they are for, and with the process.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// What came of putting it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PutBack {
    /// It was done, here or by another control plane.
    Done,
    /// Another control plane has the key of the one that signs by the database.
    Elsewhere,
    /// So many others do not say.
    Silent(usize),
}

/// Puts it back whenever the database goes back under this control plane, until `stop`.
pub(crate) async fn follow(registry: Arc<Registry>, stop: CancellationToken) {
    let followed = async {
        let mut changes = registry.credentials.changes();
        loop {
            changes.mark_unchanged();
            if registry.credentials.gone_back().is_some() {
                registry.settle_signer().await;
            }
            // Its sender lives as long as the registry.
            if changes.changed().await.is_err() {
                return stop.cancelled().await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = followed => {}
    }
}

impl Registry {
    /// Puts it back, or takes what the database says. Ends when either is done.
    async fn settle_signer(&self) {
        let since = Instant::now();
        let mut pauses = pauses();
        let mut said = None;
        while let Some(gone_back) = self.credentials.gone_back() {
            let newer = signer(&gone_back.before).map(|it| it.trusted.key());
            let is_here = newer.is_some_and(|newer| self.authorities.find(newer).is_some());
            if !is_here {
                if since.elapsed() >= PATIENCE {
                    warn!(name: "database-went-back-before-authority",
                        authority = %gone_back.in_database,
                        "the database went back to before the authority that signed, and no control plane has put that back; \
                         this one does not have its key (quilt-mesh-control ca import)"
                    );
                    return self.credentials.take_those_of_the_database();
                }
            } else {
                let why = match self.put_back_signer(&gone_back).await {
                    Ok(PutBack::Done) => continue,
                    Ok(PutBack::Elsewhere) => {
                        error!(name: "another-control-plane-key-authority",
                            signs = %gone_back.in_database,
                            "another control plane has the key of the authority that signs by the database, and this host's \
                             file is from another time: quilt-mesh-control ca export there, ca import here"
                        );
                        return self.credentials.take_those_of_the_database();
                    }
                    Ok(PutBack::Silent(count)) => AuthoritiesError::OthersRun(count).to_string(),
                    Err(error) => error.to_string(),
                };
                if said.as_ref() != Some(&why) {
                    warn!(name: "authority-signed-not-put-back",
                        why,
                        "the authority that signed is not put back yet into a database that went back; it is tried again"
                    );
                    said = Some(why);
                }
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    /// What the file of this host has of authorities, if one of them took the place of the one that signs by the database.
    pub(super) fn signer_of_before(&self) -> Option<GoneBack> {
        let state = self.credentials.state();
        let in_database = &signer(&state.authorities)?.trusted;
        let mesh = in_database.presented.name.mesh();
        let mut filed = self.authorities.all();
        filed.retain(|it| it.mesh() == mesh);
        let before = states_in(&filed);
        let newer = &signer(&before)?.trusted;
        let says_so = filed
            .iter()
            .any(|it| it.trusted().key() == newer.key() && it.state.is_some());
        // A file from before does not say that it signed, but nothing else can here.
        let can_sign = self.authorities.find(in_database.key()).is_some();
        let is_wanted =
            (says_so || !can_sign) && is_from_before(newer, &state.authorities, &state.ended);
        let in_database = in_database.key();
        is_wanted.then_some(GoneBack {
            in_database,
            before,
        })
    }

    /// Puts it back before this control plane serves.
    pub(super) async fn put_back_at_start(
        &self,
        file: &Path,
        before: GoneBack,
    ) -> Result<(), AuthoritiesError> {
        match self.put_back_signer(&before).await? {
            PutBack::Done => Ok(()),
            PutBack::Silent(count) => Err(AuthoritiesError::OthersRun(count)),
            PutBack::Elsewhere => Err(AuthoritiesError::LacksKey {
                file: file.to_owned(),
                signs: before.in_database,
                has: self.authorities.any(),
            }),
        }
    }

    async fn put_back_signer(&self, gone_back: &GoneBack) -> Result<PutBack, Arc<StoreError>> {
        let GoneBack {
            in_database,
            before,
        } = gone_back;
        if self.authorities.find(*in_database).is_none() {
            match self.others_that_sign().await? {
                // Who asks as well lacks it, and the transaction says who is first.
                Others::None | Others::Ask(_) => {}
                Others::Sign => return Ok(PutBack::Elsewhere),
                Others::Silent(count) => return Ok(PutBack::Silent(count)),
            }
        }
        let _turn = self.turn.lock().await;
        let now = unix_seconds();
        let put_back = async {
            let mut change = self.store.begin_credentials().await?;
            let stored = change.authorities().await?;
            if signer(&stored).map(|it| it.trusted.key()) != Some(*in_database) {
                change.roll_back().await?;
                return Ok(false);
            }
            change.remove_authorities().await?;
            for StoredAuthority { trusted, state } in before {
                // What it was in the meantime. The one that signs by the database is trusted on if it can sign.
                let state = match trusted.key() == *in_database {
                    true => AuthorityState::Last,
                    false => *state,
                };
                change.add_authority(trusted, state, now).await?;
            }
            let is_trusted =
                |key: KeyDigest| before.iter().any(|before| before.trusted.key() == key);
            for ended in stored.iter().map(|it| it.trusted.key()) {
                if !is_trusted(ended) {
                    change.note_ended(ended, now).await?;
                }
            }
            let doer = Doer {
                who: "control plane".to_owned(),
                source: String::new(),
                mandate: Mandate::own(),
            };
            let subject = "a database that went back to before it";
            change
                .keep_audit(&doer.did("put back authority", subject))
                .await?;
            self.finish_credentials(change)
                .await
                .map_err(StoreError::Shared)?;
            Ok(true)
        };
        let is_put_back = within(BATCH_DEADLINE, put_back).await?;
        self.read_credentials().await?;
        if is_put_back && let Some(newer) = signer(before) {
            warn!(name: "database-gone-back-before-certificate",
                authority = %newer.trusted.key(), instead_of = %in_database,
                "the database had gone back to before this certificate authority took the place of another; it signs again, \
                 and nodes' certificates go on. Join tokens of the time before are worth nothing"
            );
        }
        Ok(PutBack::Done)
    }
}
