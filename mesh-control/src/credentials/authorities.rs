//! The mesh's certificate authorities: their keys in a file of this host, their certificates in the database.
//!
//! A key never goes through the database: whoever reads a backup of it cannot make nodes. Where several replicas share
//! a database, the first one makes the authority, and the others are given its file.
//!
//! An authority takes the place of another in three steps, so that nobody is shut out: the next is trusted before it
//! signs, and the last is trusted until nothing that it signed is in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use mesh_credentials::authority::Authority;
use mesh_credentials::authority_file::{self, AuthorityFileError, FiledAuthority};
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::name::MeshId;
use mesh_credentials::secret_file::SecretFileError;
use mesh_rest::join::{AuthorityEntry, AuthorityList, LONGEST_KEYS};
use tracing::{info, warn};

use super::audit::Doer;
use super::authorities_error::AuthoritiesError;
use super::filed_states::states_in;
use super::refusal::CredentialError;
use crate::registry::{Registry, unix_seconds};
use crate::store::{AuthorityState, StoredAuthority};

/// The authorities whose keys this host has.
#[derive(Debug, Default)]
pub struct Authorities {
    keys: RwLock<Keys>,
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Keys {
    file: Option<PathBuf>,
    authorities: Vec<FiledAuthority>,
    /// Those that were dropped here, and may still be in the file.
    dropped: Vec<KeyDigest>,
    /// Whether the file could not be written, and holds what was before.
    is_behind: bool,
}

impl Authorities {
    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by whoever writes the file, so that one at a time does.
    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one with this key.
    #[must_use]
    pub fn find(&self, key: KeyDigest) -> Option<Arc<Authority>> {
        let keys = self.read();
        let mut all = keys.authorities.iter();
        let found = all.find(|it| it.trusted().key() == key);
        found.map(|it| Arc::clone(&it.authority))
    }

    /// All that it has, each with what it does as far as that is known.
    pub(super) fn all(&self) -> Vec<FiledAuthority> {
        self.read().authorities.clone()
    }

    /// One that it has.
    pub(super) fn any(&self) -> Option<KeyDigest> {
        let keys = self.read();
        keys.authorities.first().map(|it| it.trusted().key())
    }

    /// The file.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.read().file.clone()
    }

    /// The file, and what it has to hold; `None`: nothing.
    pub(super) fn held(&self) -> Option<(PathBuf, Vec<FiledAuthority>)> {
        let keys = self.read();
        let file = keys.file.clone().filter(|_| !keys.authorities.is_empty())?;
        Some((file, keys.authorities.clone()))
    }

    /// Certificates and keys as they stand in the file.
    fn text(&self) -> String {
        authority_file::text(&self.read().authorities)
    }

    /// Has these, which are in the file.
    pub(super) fn have(&self, file: &Path, authorities: Vec<FiledAuthority>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Keys {
            file: Some(file.to_owned()),
            authorities,
            ..Keys::default()
        };
    }

    /// Has these beside those that it has, also in the file.
    pub(super) fn add(&self, more: Vec<FiledAuthority>) -> Result<(), SecretFileError> {
        let _turn = self.writing();
        let mut authorities = self.all();
        authorities.extend(more);
        if let Some(file) = self.file() {
            authority_file::replace(&file, &authorities)?;
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.authorities = authorities;
        keys.is_behind = false;
        Ok(())
    }

    /// Drops those with the keys in `ended`, and takes note of what the others do as far as `stored` says it; also in the
    /// file. Returns which it had, and what came of writing: it has dropped them in any case, and the file is written later,
    /// when it can be.
    fn settle(
        &self,
        ended: &[KeyDigest],
        stored: &[StoredAuthority],
    ) -> (Vec<KeyDigest>, Result<(), SecretFileError>) {
        let settled = |mut it: FiledAuthority| {
            let key = it.trusted().key();
            let said = stored.iter().find(|stored| stored.trusted.key() == key);
            it.state = said.map(|said| said.state).or(it.state);
            it
        };
        let is_settled = self.read().authorities.iter().all(|it| {
            !ended.contains(&it.trusted().key()) && settled(it.clone()).state == it.state
        });
        // Whoever writes may wait for a disk, and this follows every change of credentials.
        if is_settled {
            return (Vec::new(), Ok(()));
        }
        let _turn = self.writing();
        let (dropped, kept): (Vec<_>, Vec<_>) = self
            .all()
            .into_iter()
            .partition(|it| ended.contains(&it.trusted().key()));
        let dropped: Vec<KeyDigest> = dropped.iter().map(|it| it.trusted().key()).collect();
        {
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.authorities = kept.into_iter().map(settled).collect();
            keys.dropped.extend(&dropped);
        }
        (dropped, self.write())
    }

    /// Writes the file, which has to be whole again whatever failed before. By whoever holds [`Authorities::writing`].
    fn write(&self) -> Result<(), SecretFileError> {
        let (file, authorities) = {
            let keys = self.read();
            (keys.file.clone(), keys.authorities.clone())
        };
        let written = match file {
            Some(file) => authority_file::replace(&file, &authorities),
            None => Ok(()),
        };
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.is_behind = written.is_err();
        written
    }

    /// Writes the file if it could not be written before, and holds these keys: unless one of them is known neither as held
    /// nor as dropped, and may be nowhere else. Whether it did. By whoever holds [`Authorities::writing`].
    pub(super) fn catch_up(&self, in_file: &[KeyDigest]) -> bool {
        let is_wanted = {
            let keys = self.read();
            let is_known = |key: &KeyDigest| {
                keys.dropped.contains(key)
                    || keys.authorities.iter().any(|it| it.trusted().key() == *key)
            };
            keys.is_behind && in_file.iter().all(is_known)
        };
        is_wanted && self.write().is_ok()
    }
}

/// The authorities that somebody brings, with their keys.
fn read_given(pem: &str) -> Result<Vec<FiledAuthority>, CredentialError> {
    let wrong = |rule: String| CredentialError::Field {
        field: "keys",
        rule,
    };
    if pem.len() > LONGEST_KEYS {
        let length = pem.len();
        return Err(wrong(format!(
            "it has {length} bytes, and what was exported has at most {LONGEST_KEYS}"
        )));
    }
    let given = authority_file::parse(pem).map_err(|error| wrong(error.to_string()))?;
    match given.is_empty() {
        true => Err(wrong(
            "there is no authority in it; it is what quilt-mesh-control ca export has printed"
                .to_owned(),
        )),
        false => Ok(given),
    }
}

impl Registry {
    /// Takes up the authorities in `file`, or makes the first of a new mesh. When it returns, certificates can be signed.
    ///
    /// # Errors
    ///
    /// [`AuthoritiesError`]; the control plane can do everything else then.
    pub async fn open_authorities(&self, file: &Path) -> Result<(), AuthoritiesError> {
        let found = match authority_file::read(file) {
            // Then it is said which key it is that is not there.
            Err(AuthorityFileError::NoKey { .. }) if self.credentials.signs().is_some() => {
                Vec::new()
            }
            found => found?,
        };
        self.authorities.have(file, found);
        self.take_up_unfinished(file)?;
        self.drop_ended_authorities();
        if let Some(before) = self.signer_of_before() {
            self.put_back_at_start(file, before).await?;
        }
        self.settle_authorities();
        if self.credentials.signs().is_none() {
            self.make_first(file).await?;
        }
        if self.credentials.is_unnoted() {
            self.note_credentials().await?;
        }
        // Whoever was first.
        match self.credentials.signs() {
            Some(signs) if self.authorities.find(signs).is_none() => {
                Err(AuthoritiesError::LacksKey {
                    file: file.to_owned(),
                    signs,
                    has: self.authorities.any(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Adds to the database what is in the file, or made for it; unless another replica has done so meanwhile.
    async fn make_first(&self, file: &Path) -> Result<(), AuthoritiesError> {
        let now = unix_seconds();
        let mut made = false;
        if self.authorities.any().is_none() {
            let authority = Authority::make(MeshId::make(), now)?;
            made = authority_file::create(
                file,
                &[FiledAuthority::new(authority, AuthorityState::Signs)],
            )?;
            self.authorities.have(file, authority_file::read(file)?);
        }
        let all = states_in(&self.authorities.all());
        let _turn = self.turn.lock().await;
        let mut change = self.store.begin_credentials().await?;
        if !change.authorities().await?.is_empty() {
            change.roll_back().await?;
            self.read_credentials().await?;
            let signs = self.credentials.signs();
            let ours = signs.is_some_and(|signs| self.authorities.find(signs).is_some());
            if made && !ours {
                // Nobody has seen it.
                if let Err(error) = std::fs::remove_file(file)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    warn!(name: "cannot-remove-file-authority-not", %error, file = %file.display(), "cannot remove the file of an authority that is not used");
                }
                self.authorities.have(file, Vec::new());
            }
            return Ok(());
        }
        for StoredAuthority { trusted, state } in &all {
            change.add_authority(trusted, *state, now).await?;
        }
        self.finish_credentials(change).await?;
        if let Some(signs) = self.credentials.signs() {
            info!(name: "mesh-certificate-authority-own", authority = %signs, file = %file.display(), "this mesh has a certificate authority of its own; keep its file");
            if self.credentials.any() {
                warn!(name: "control-plane-credentials-database-none", authority = %signs,
                    "this control plane has had credentials, and its database has none: it was lost, or is another one. Nodes with \
                     certificates of this authority come back by themselves; others join again by tokens \
                     (quilt-mesh-control token create)");
            }
        }
        Ok(())
    }

    /// The authorities that are trusted.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NoAuthority`].
    pub fn authority_list(&self) -> Result<AuthorityList, CredentialError> {
        let none = || CredentialError::NoAuthority("it has none".to_owned());
        let trust = self.credentials.trust().ok_or_else(none)?;
        let state = self.credentials.state();
        let entries = state.authorities.iter().map(|it| AuthorityEntry {
            certificate: it.trusted.pem(),
            key: it.trusted.key().to_string(),
            signs: it.state == AuthorityState::Signs,
            not_after: it.trusted.presented.not_after,
        });
        Ok(AuthorityList {
            mesh_id: trust.mesh().to_string(),
            authorities: entries.collect(),
        })
    }

    /// Certificates and keys, for another replica or a backup.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NoAuthority`].
    pub fn export_authorities(&self, doer: &Doer) -> Result<String, CredentialError> {
        let keys = self.authorities.text();
        if keys.is_empty() {
            let why = "it has no key of an authority; give it that of another replica, or of a backup (quilt-mesh-control ca import FILE)";
            return Err(CredentialError::NoAuthority(why.to_owned()));
        }
        self.note(doer.did("export authority", ""));
        Ok(keys)
    }

    /// Takes the keys of authorities that another replica made.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn import_authorities(&self, pem: &str, doer: &Doer) -> Result<(), CredentialError> {
        let mut given = read_given(pem)?;
        self.read_credentials().await?;
        let trusted = self.trusted_keys();
        if let Some(other) = given
            .iter()
            .find(|it| !trusted.contains(&it.trusted().key()))
        {
            return Err(CredentialError::OtherMesh(other.trusted().key()));
        }
        given.retain(|it| self.authorities.find(it.trusted().key()).is_none());
        let names: Vec<String> = given
            .iter()
            .map(|it| it.trusted().key().to_string())
            .collect();
        self.authorities
            .add(given)
            .map_err(|error| CredentialError::NoAuthority(error.to_string()))?;
        // The file that was brought may be from another step of a rotation.
        self.settle_authorities();
        self.note(doer.did("import authority", &names.join(" ")));
        // What shows certificates looks again which it can sign.
        self.credentials.tell();
        Ok(())
    }

    /// Drops the keys of authorities whose place another has taken, wherever that was said.
    fn drop_ended_authorities(&self) {
        self.settle_by(&[]);
    }

    /// Does so, and has the file say what each of the others does.
    pub(super) fn settle_authorities(&self) {
        let stored = self.credentials.state().authorities.clone();
        self.settle_by(&stored);
    }

    fn settle_by(&self, stored: &[StoredAuthority]) {
        let ended: Vec<KeyDigest> = {
            let state = self.credentials.state();
            let is_trusted =
                |key: &&KeyDigest| state.authorities.iter().any(|it| it.trusted.key() == **key);
            let ended = state.ended.iter().filter(|key| !is_trusted(key));
            ended.copied().collect()
        };
        let (dropped, written) = self.authorities.settle(&ended, stored);
        for authority in &dropped {
            info!(name: "dropped-key-authority-trusted-no", %authority, "dropped the key of an authority that is trusted no longer");
        }
        // Once for each change: what is in memory is settled then.
        if let Err(error) = written {
            warn!(name: "file-certificate-authority-cannot-written", %error, dropped = dropped.len(),
                "the file of the certificate authority cannot be written, and is as it was before a step of a rotation, with \
                 the keys that were dropped here; it is written when it can be");
        }
    }

    fn trusted_keys(&self) -> Vec<KeyDigest> {
        let state = self.credentials.state();
        let authorities = state.authorities.iter();
        authorities.map(|it| it.trusted.key()).collect()
    }
}
