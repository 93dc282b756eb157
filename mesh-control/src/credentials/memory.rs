//! What is stored of credentials, in memory: every request is judged by it, and none waits for the database.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_credentials::trust::{Trust, Trusted};
use mesh_rest::security::Stage;
use tokio::sync::{Notify, watch};

use narrowed::brings_some;

use crate::store::{
    AuthorityState, CredentialChanges, NodeCredential, StoredAuthority, StoredOperator, StoredToken,
};

/// See the module.
#[derive(Debug)]
pub struct Credentials {
    state: RwLock<State>,
    /// Which history the revision is one of: more with every reading of everything, and whenever that is due.
    history: Mutex<u64>,
    /// Something may be stored that is not known here.
    doubt: Notify,
    /// Counts changes.
    changed: watch::Sender<u64>,
    /// Counts those by which somebody who was let in may not be any more.
    narrowed: watch::Sender<u64>,
}

/// What is behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    revision: i64,
    pub(crate) stage: Stage,
    /// Whether anybody ever had credentials; never taken back while this process runs.
    had_credentials: bool,
    /// Whether the database says so.
    is_noted: bool,
    /// The database lost its authorities while this process ran: those below, and the stage, are from before, and are to be
    /// put back.
    is_lost: bool,
    /// Those of a database that went back to before the one of `authorities` that signs: not taken in yet.
    gone_back: Option<Vec<StoredAuthority>>,
    pub(crate) authorities: Vec<StoredAuthority>,
    pub(crate) nodes: HashMap<String, NodeCredential>,
    /// Nodes that had some by what was read before, of a database that went back.
    before: HashSet<String>,
    /// Keys of authorities that are trusted no longer, and whose keys nobody needs.
    pub(crate) ended: Vec<KeyDigest>,
    /// Those of `nodes` that are known by what certificates of one's own call them.
    called: HashMap<KeyDigest, String>,
    /// The keys of `nodes`, with how many have each.
    keys: HashMap<KeyDigest, u32>,
    pub(crate) tokens: HashMap<String, StoredToken>,
    pub(crate) operators: HashMap<String, StoredOperator>,
    /// Those in `authorities`, as certificates are checked by them; `None`: there are none.
    trust: Option<Trust>,
    /// What tells nodes of a change of them.
    digest: Option<Arc<str>>,
}

/// What is known when something is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) revision: i64,
    history: u64,
}

/// What was read came too late: since then everything was read anew, or is to be.
#[derive(Debug)]
pub(super) struct Outdated;

/// What a database lost while this process ran.
#[derive(Debug)]
pub(crate) struct Lost {
    /// How far the cluster was secured.
    pub(crate) stage: Stage,
    /// The authorities that were trusted.
    pub(crate) authorities: Vec<StoredAuthority>,
    /// Nodes that may do nothing.
    pub(crate) revoked: Vec<NodeCredential>,
}

/// What a database says that went back to before the authority that signs, and what held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GoneBack {
    /// The key of the one that signs by the database.
    pub(crate) in_database: KeyDigest,
    /// The authorities that were trusted, the one that signs first.
    pub(crate) before: Vec<StoredAuthority>,
}

/// The one that signs.
pub(super) fn signer(authorities: &[StoredAuthority]) -> Option<&StoredAuthority> {
    let mut all = authorities.iter();
    all.find(|it| it.state == AuthorityState::Signs)
}

/// Whether an authority that signed took the place of the one that signs by the database, which does not know it: the
/// database went back. One that was made later than it took its place, as does one of another mesh.
pub(super) fn is_from_before(
    signed: &Trusted,
    database: &[StoredAuthority],
    ended: &[KeyDigest],
) -> bool {
    let Some(signs) = signer(database).map(|it| &it.trusted) else {
        return false;
    };
    let mut of_it = database
        .iter()
        .filter(|it| it.trusted.key() == signed.key());
    signs.key() != signed.key()
        && signs.presented.name.mesh() == signed.presented.name.mesh()
        && signs.presented.not_after <= signed.presented.not_after
        && !ended.contains(&signed.key())
        && of_it.all(|it| it.state == AuthorityState::Next)
}

impl State {
    pub(crate) fn signs(&self) -> Option<KeyDigest> {
        let signs = |it: &&StoredAuthority| it.state == AuthorityState::Signs;
        let authority = self.authorities.iter().find(signs);
        authority.map(|it| it.trusted.key())
    }

    fn trusts(&mut self, authorities: Vec<StoredAuthority>) {
        let trusted = authorities.iter().map(|it| it.trusted.clone());
        self.trust = Trust::new(trusted.collect()).ok();
        self.authorities = authorities;
        let trust = self.trust.as_ref().zip(self.signs());
        self.digest = trust.map(|(trust, signs)| trust.digest(signs).into());
    }

    fn take_in(&mut self, node: NodeCredential) {
        let node_id = &node.node_id;
        if let Some(before) = self.nodes.get(node_id) {
            if self.called.get(&before.key) == Some(node_id) {
                self.called.remove(&before.key);
            }
            match self.keys.get_mut(&before.key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.keys.remove(&before.key);
                }
            }
        }
        *self.keys.entry(node.key).or_default() += 1;
        if node.issuer == own_certificate::issuer() {
            self.called.insert(node.key, node_id.clone());
        }
        self.nodes.insert(node_id.clone(), node);
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            state: RwLock::new(State {
                revision: -1,
                // Nothing is let in by mistake while nothing is read.
                stage: Stage::Secured,
                had_credentials: false,
                is_noted: false,
                is_lost: false,
                gone_back: None,
                authorities: Vec::new(),
                ended: Vec::new(),
                nodes: HashMap::new(),
                before: HashSet::new(),
                called: HashMap::new(),
                keys: HashMap::new(),
                tokens: HashMap::new(),
                operators: HashMap::new(),
                trust: None,
                digest: None,
            }),
            history: Mutex::default(),
            doubt: Notify::new(),
            changed: watch::Sender::new(0),
            narrowed: watch::Sender::new(0),
        }
    }
}

impl Credentials {
    /// Never held across a wait, and never left half changed.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever any of this does.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes when somebody who was let in may not be any more, and not with every certificate that is given: thousands of
    /// questions that wait are judged again then.
    pub(crate) fn narrowings(&self) -> watch::Receiver<u64> {
        self.narrowed.subscribe()
    }

    /// What is known, for a read that begins now.
    pub(super) fn known(&self) -> Known {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        Known {
            revision: self.state().revision,
            history: *history,
        }
    }

    /// Takes in what changed after what was known when it was read. Whether these are the first there are, in a cluster
    /// that lets nobody in without from then on.
    pub(super) fn take_in_since(
        &self,
        known: Known,
        changes: CredentialChanges,
    ) -> Result<bool, Outdated> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if known.history != *history {
            return Err(Outdated);
        }
        if changes.is_whole {
            *history += 1;
        } else if changes.revision <= self.state().revision {
            // Two read at once, and the other one later.
            return Ok(false);
        }
        Ok(self.take_in(changes))
    }

    /// Has what is stored read soon, whoever needs it; see [`Registry::keep_credentials_known`].
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Ends when there is doubt.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Whether these are the first there are, in a cluster that lets nobody in without from then on.
    fn take_in(&self, changes: CredentialChanges) -> bool {
        let are_first;
        let narrows = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let narrows = state.is_narrowed_by(&changes);
            let had_some = state.had_credentials || state.revision == -1;
            state.had_credentials |= brings_some(&changes);
            are_first = !had_some && state.had_credentials && changes.stage == Stage::Secured;
            state.is_noted = changes.had_credentials;
            state.is_lost = changes.authorities.is_empty() && !state.authorities.is_empty();
            if changes.is_whole {
                // At first, and when the database went back: what is read takes the place of what was known in one moment,
                // so that what is revoked is never unknown.
                let before = std::mem::take(&mut state.nodes);
                state.called.clear();
                state.keys.clear();
                state.before.extend(before.keys().cloned());
                if state.is_lost {
                    // They are about to be put back.
                    for node in before.into_values().filter(|node| node.revoked) {
                        state.take_in(node);
                    }
                }
                state.tokens.clear();
                state.operators.clear();
            }
            state.revision = changes.revision;
            state.ended = changes.ended;
            // A database that lost them is about to get them back: nobody is shut out, or let in, meanwhile.
            if !state.is_lost {
                state.stage = changes.stage;
                let went_back = signer(&state.authorities).is_some_and(|it| {
                    is_from_before(&it.trusted, &changes.authorities, &state.ended)
                });
                match went_back {
                    true => state.gone_back = Some(changes.authorities),
                    false => {
                        state.gone_back = None;
                        state.trusts(changes.authorities);
                    }
                }
            }
            for node in changes.nodes {
                state.take_in(node);
            }
            let tokens = changes.tokens.into_iter();
            state
                .tokens
                .extend(tokens.map(|token| (token.token_id.clone(), token)));
            let operators = changes.operators.into_iter();
            state
                .operators
                .extend(operators.map(|it| (it.operator_id.clone(), it)));
            narrows
        };
        if narrows {
            self.narrowed.send_modify(|count| *count += 1);
        }
        self.changed.send_modify(|count| *count += 1);
        are_first
    }

    /// Tells whoever goes by them that something has changed that is not in the database.
    pub(crate) fn tell(&self) {
        self.narrowed.send_modify(|count| *count += 1);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Has all of it read next. Until then what was known counts.
    pub(crate) fn read_anew(&self) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        // What is being read now is of what was known before.
        *history += 1;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.revision = -1;
    }

    /// How far the cluster is secured.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.state().stage
    }

    /// Whether anybody ever had credentials, or was to get some: from then on nobody is let in without any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.state().had_credentials
    }

    /// Takes note that somebody had some before this process began, whatever the database says.
    pub(crate) fn there_were_some(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.had_credentials = true;
    }

    /// Whether the database does not say what is known here: that somebody had some.
    pub(crate) fn is_unnoted(&self) -> bool {
        let state = self.state();
        state.had_credentials && !state.is_noted
    }

    /// What is to be put back into a database that lost it.
    pub(crate) fn lost(&self) -> Option<Lost> {
        let state = self.state();
        state.is_lost.then(|| Lost {
            stage: state.stage,
            authorities: state.authorities.clone(),
            revoked: state
                .nodes
                .values()
                .filter(|node| node.revoked)
                .cloned()
                .collect(),
        })
    }

    /// What is to be put right in a database that went back.
    pub(crate) fn gone_back(&self) -> Option<GoneBack> {
        let state = self.state();
        let database = state.gone_back.as_deref()?;
        Some(GoneBack {
            in_database: signer(database)?.trusted.key(),
            before: state.authorities.clone(),
        })
    }

    /// Takes the authorities of a database that went back, because what held before cannot be put back.
    pub(crate) fn take_those_of_the_database(&self) {
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(authorities) = state.gone_back.take() {
                state.trusts(authorities);
            }
        }
        self.tell();
    }

    /// The key of the authority that signs by the database, also where that went back.
    pub(crate) fn signs_in_database(&self) -> Option<KeyDigest> {
        let state = self.state();
        match &state.gone_back {
            Some(authorities) => signer(authorities).map(|it| it.trusted.key()),
            None => state.signs(),
        }
    }

    /// Whether a node, also one that was revoked, has this key.
    pub(crate) fn knows_key(&self, key: KeyDigest) -> bool {
        self.state().keys.contains_key(&key)
    }

    /// By which key a node is known; `None`: by none, as far as is known here.
    #[must_use]
    pub fn node(&self, node_id: &str) -> Option<NodeCredential> {
        self.state().nodes.get(node_id).cloned()
    }

    /// Whether a node has credentials, also ones that were revoked, or had some before the database went back.
    #[must_use]
    pub(crate) fn knew(&self, node_id: &str) -> bool {
        let state = self.state();
        state.nodes.contains_key(node_id) || state.before.contains(node_id)
    }

    /// The node, also one that was revoked, that is known by what a certificate of one's own calls it.
    #[must_use]
    pub fn node_called(&self, name: KeyDigest) -> Option<String> {
        self.state().called.get(&name).cloned()
    }

    /// The authorities that are trusted; `None`: there are none.
    #[must_use]
    pub fn trust(&self) -> Option<Trust> {
        self.state().trust.clone()
    }

    /// The key of the authority that signs.
    #[must_use]
    pub fn signs(&self) -> Option<KeyDigest> {
        self.state().signs()
    }

    /// What tells nodes that other authorities are trusted than before, or that another one signs.
    #[must_use]
    pub fn authorities_digest(&self) -> Option<Arc<str>> {
        self.state().digest.clone()
    }
}

mod narrowed;
#[cfg(test)]
mod tests;
