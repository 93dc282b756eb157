//! What is stored of credentials, in memory: every request is judged by it, and none waits for the database.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_credentials::trust::Trust;
use mesh_rest::security::Stage;
use mesh_rest::status::Status;
use tokio::sync::watch;
use tracing::info;

use crate::registry::Registry;
use crate::store::{
    AuthorityState, CredentialChanges, NodeCredential, StoreError, StoredAuthority, StoredOperator,
    StoredToken,
};

/// See the module.
#[derive(Debug)]
pub struct Credentials {
    state: RwLock<State>,
    /// Counts changes.
    changed: watch::Sender<u64>,
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
    pub(crate) authorities: Vec<StoredAuthority>,
    pub(crate) nodes: HashMap<String, NodeCredential>,
    /// Nodes that had some by what was read before, of a database that went back.
    before: HashSet<String>,
    /// Keys of authorities that are trusted no longer, and whose keys nobody needs.
    pub(crate) ended: Vec<KeyDigest>,
    /// Those of `nodes` that are known by what certificates of one's own call them.
    called: HashMap<KeyDigest, String>,
    pub(crate) tokens: HashMap<String, StoredToken>,
    pub(crate) operators: HashMap<String, StoredOperator>,
    /// Those in `authorities`, as certificates are checked by them; `None`: there are none.
    trust: Option<Trust>,
    /// What tells nodes of a change of them.
    digest: Option<Arc<str>>,
}

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

impl State {
    fn signs(&self) -> Option<KeyDigest> {
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
        if let Some(before) = self.nodes.get(node_id)
            && self.called.get(&before.key) == Some(node_id)
        {
            self.called.remove(&before.key);
        }
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
                authorities: Vec::new(),
                ended: Vec::new(),
                nodes: HashMap::new(),
                before: HashSet::new(),
                called: HashMap::new(),
                tokens: HashMap::new(),
                operators: HashMap::new(),
                trust: None,
                digest: None,
            }),
            changed: watch::Sender::new(0),
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

    pub(super) fn revision(&self) -> i64 {
        self.state().revision
    }

    /// Whether these are the first there are, in a cluster that lets nobody in without from then on.
    fn take_in(&self, changes: CredentialChanges) -> bool {
        let are_first;
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let has_some = !changes.nodes.is_empty() || !changes.operators.is_empty();
            let had_some = state.had_credentials || state.revision == -1;
            state.had_credentials |= changes.had_credentials || has_some;
            are_first = !had_some && state.had_credentials && changes.stage == Stage::Secured;
            state.is_noted = changes.had_credentials;
            state.is_lost = changes.authorities.is_empty() && !state.authorities.is_empty();
            if changes.is_whole {
                // At first, and when the database went back: what is read takes the place of what was known in one moment,
                // so that what is revoked is never unknown.
                let is_kept = state.is_lost;
                let lost: Vec<String> = state.nodes.keys().cloned().collect();
                state.before.extend(lost);
                state.nodes.retain(|_, node| is_kept && node.revoked);
                state.called.clear();
                let revoked: Vec<_> = state.nodes.values().cloned().collect();
                for node in revoked {
                    state.take_in(node);
                }
                state.tokens.clear();
                state.operators.clear();
            }
            state.revision = changes.revision;
            state.ended = changes.ended;
            // A database that lost them is about to get them back: nobody is shut out, or let in, meanwhile.
            if !state.is_lost {
                state.stage = changes.stage;
                state.trusts(changes.authorities);
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
        }
        self.changed.send_modify(|count| *count += 1);
        are_first
    }

    /// Tells whoever goes by them that something has changed that is not in the database.
    pub(crate) fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Has all of it read next. Until then what was known counts.
    pub(crate) fn read_anew(&self) {
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

impl Registry {
    /// Reads all there is.
    pub(crate) async fn fill_credentials(&self) -> Result<(), StoreError> {
        if let Some(changes) = self.store.credentials_since(-1).await? {
            self.take_in_credentials(changes);
        }
        Ok(())
    }

    /// Takes in what was read, and does on this host what follows from it.
    fn take_in_credentials(&self, changes: CredentialChanges) {
        if self.credentials.take_in(changes) {
            self.say_who_is_shut_out();
        }
        if self.credentials.any() {
            self.mark.make();
        }
        self.drop_ended_authorities();
    }

    fn say_who_is_shut_out(&self) {
        const MOST_NAMED: usize = 5;
        let names: Vec<String> = {
            let memory = self.copy.memory();
            let state = self.credentials.state();
            let without = memory.roster.nodes().filter(|node| {
                let status = memory.liveness.status(node.node_id.as_str());
                status == Some(Status::Up) && !state.nodes.contains_key(node.node_id.as_str())
            });
            without.map(|node| node.hostname.clone()).collect()
        };
        let shown = names[..names.len().min(MOST_NAMED)].join(", ");
        info!(
            shut_out = names.len(),
            shown, "the first credential was made: from now on nobody is let in without"
        );
    }

    /// Reads what changed of credentials.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    pub(crate) async fn read_credentials(&self) -> Result<(), Arc<StoreError>> {
        let read = async {
            let known = self.credentials.revision();
            if let Some(changes) = self.store.credentials_since(known).await? {
                self.take_in_credentials(changes);
            }
            Ok(())
        };
        self.credential_reads.share(read).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(revision: i64, nodes: &[&str]) -> CredentialChanges {
        let key = KeyDigest::of(b"");
        let nodes = nodes.iter().map(|node_id| NodeCredential {
            node_id: (*node_id).to_owned(),
            key,
            issuer: key,
            expires_at: 0,
            only_hostname: None,
            revoked: false,
        });
        CredentialChanges {
            revision,
            is_whole: revision == 1,
            stage: Stage::Secured,
            had_credentials: false,
            authorities: Vec::new(),
            ended: Vec::new(),
            nodes: nodes.collect(),
            tokens: Vec::new(),
            operators: Vec::new(),
        }
    }

    #[test]
    fn who_is_called_so_is_the_node_until_that_is_known_by_another_key() {
        let credentials = Credentials::default();
        let (name, key) = (KeyDigest::of(b"name"), KeyDigest::of(b"key"));
        let take_in = |revision, node_id: &str, key, issuer| {
            let mut changes = changes(revision, &[node_id]);
            changes.nodes[0].key = key;
            changes.nodes[0].issuer = issuer;
            credentials.take_in(changes);
        };
        let own = own_certificate::issuer();
        take_in(1, "a", name, own);
        assert_eq!(credentials.node_called(name).as_deref(), Some("a"));
        // The host joined; what it was called before is revoked, in whatever order they are read.
        take_in(2, "own", name, own);
        take_in(3, "a", key, KeyDigest::of(b"authority"));
        assert_eq!(credentials.node_called(name).as_deref(), Some("own"));
        assert_eq!(credentials.node_called(key), None);
        take_in(4, "own", key, KeyDigest::of(b"authority"));
        assert_eq!(credentials.node_called(name), None);
    }

    #[test]
    fn what_changed_is_added_and_a_database_that_went_back_is_taken_whole() {
        let credentials = Credentials::default();
        let mut heard = credentials.changes();
        credentials.take_in(changes(1, &["a"]));
        assert!(heard.has_changed().unwrap());
        heard.mark_unchanged();
        credentials.take_in(changes(2, &["b"]));
        assert!(credentials.node("a").is_some() && credentials.node("b").is_some());
        assert!(heard.has_changed().unwrap());
        credentials.take_in(changes(1, &["a"]));
        assert!(credentials.node("a").is_some() && credentials.node("b").is_none());
    }
}
