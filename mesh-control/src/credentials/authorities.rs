//! The mesh's certificate authorities: their keys in a file of this host, their certificates in the database.
//!
//! A key never goes through the database: whoever reads a backup of it cannot make nodes. Where several replicas share
//! a database, the first one makes the authority, and the others are given its file.
//!
//! An authority takes the place of another in three steps, so that nobody is shut out: the next is trusted before it
//! signs, and the last is trusted until nothing that it signed is in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use mesh_credentials::authority::{Authority, AuthorityError};
use mesh_credentials::authority_file::{self, AuthorityFileError};
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::name::MeshId;
use mesh_credentials::secret_file::SecretFileError;
use mesh_rest::join::{AuthorityEntry, AuthorityList};
use tracing::{info, warn};

use super::audit::Doer;
use super::refusal::CredentialError;
use crate::access::mandate::Mandate;
use crate::registry::{Registry, unix_seconds};
use crate::store::{AuthorityState, StoreError};

/// Nodes that a refusal names.
const MOST_NAMED: usize = 10;

/// The authorities whose keys this host has.
#[derive(Debug, Default)]
pub struct Authorities(RwLock<Keys>);

#[derive(Debug, Default)]
struct Keys {
    file: Option<PathBuf>,
    authorities: Vec<Arc<Authority>>,
}

/// Why this control plane has no authority that signs.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file.
    #[error("the file of the certificate authority: {0}")]
    File(#[from] AuthorityFileError),
    /// It cannot be written.
    #[error("the file of the certificate authority cannot be written: {0}; see --state-dir")]
    Write(#[from] SecretFileError),
    /// None could be made.
    #[error("no certificate authority could be made: {0}")]
    Make(#[from] AuthorityError),
    /// The file lacks the key of the one that signs.
    #[error(
        "{} does not have the key of the cluster's certificate authority {signs}{}. Give it the file of another replica, or \
         of a backup (quilt-mesh-control ca import FILE, before it starts). If the key is lost for good: start once with \
         --new-authority; every node has to join again then",
        .file.display(), match .has { Some(other) => format!(", but that of {other}"), None => String::new() }
    )]
    LacksKey {
        /// The file.
        file: PathBuf,
        /// The key of the one that signs.
        signs: KeyDigest,
        /// A key that the file has.
        has: Option<KeyDigest>,
    },
    /// The database.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl From<StoreError> for AuthoritiesError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Arc<StoreError>> for AuthoritiesError {
    fn from(error: Arc<StoreError>) -> Self {
        Self::Store(error)
    }
}

impl Authorities {
    /// The one with this key.
    #[must_use]
    pub fn find(&self, key: KeyDigest) -> Option<Arc<Authority>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = keys.authorities.iter();
        all.find(|it| it.trusted().key() == key).cloned()
    }

    fn any(&self) -> Option<KeyDigest> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.authorities.first().map(|it| it.trusted().key())
    }

    /// Certificates and keys as they stand in the file.
    fn text(&self) -> String {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.authorities.iter().map(|it| it.pem()).collect()
    }

    fn have(&self, file: &Path, authorities: Vec<Authority>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Keys {
            file: Some(file.to_owned()),
            authorities: authorities.into_iter().map(Arc::new).collect(),
        };
    }

    /// Has these beside those that it has, also in the file.
    fn add(&self, more: Vec<Authority>) -> Result<(), SecretFileError> {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut authorities = keys.authorities.clone();
        authorities.extend(more.into_iter().map(Arc::new));
        if let Some(file) = &keys.file {
            let text: String = authorities.iter().map(|it| it.pem()).collect();
            mesh_credentials::secret_file::replace(file, &text)?;
        }
        keys.authorities = authorities;
        Ok(())
    }

    /// Has only those with these keys, also in the file.
    fn keep(&self, trusted: &[KeyDigest]) -> Result<(), SecretFileError> {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut authorities = keys.authorities.clone();
        authorities.retain(|it| trusted.contains(&it.trusted().key()));
        if let Some(file) = &keys.file {
            let text: String = authorities.iter().map(|it| it.pem()).collect();
            mesh_credentials::secret_file::replace(file, &text)?;
        }
        keys.authorities = authorities;
        Ok(())
    }
}

impl Registry {
    /// Takes up the authorities in `file`, or makes the first of a new mesh. When it returns, certificates can be signed.
    ///
    /// # Errors
    ///
    /// [`AuthoritiesError`]; the control plane can do everything else then.
    pub async fn open_authorities(&self, file: &Path) -> Result<(), AuthoritiesError> {
        self.authorities.have(file, authority_file::read(file)?);
        if self.credentials.signs().is_none() {
            self.make_first(file).await?;
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
            made = authority_file::create(file, &[authority])?;
            self.authorities.have(file, authority_file::read(file)?);
        }
        let all = {
            let keys = self
                .authorities
                .0
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            keys.authorities.clone()
        };
        let _turn = self.turn.lock().await;
        let mut change = self.store.begin_credentials().await?;
        if change.authorities().await? > 0 {
            change.roll_back().await?;
            self.read_credentials().await?;
            let signs = self.credentials.signs();
            let ours = signs.is_some_and(|signs| self.authorities.find(signs).is_some());
            if made && !ours {
                // Nobody has seen it.
                if let Err(error) = std::fs::remove_file(file)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    warn!(%error, file = %file.display(), "cannot remove the file of an authority that is not used");
                }
                self.authorities.have(file, Vec::new());
            }
            return Ok(());
        }
        // The one that was made last is the one that took the place of the others.
        for (number, authority) in all.iter().enumerate() {
            let state = match number + 1 == all.len() {
                true => AuthorityState::Signs,
                false => AuthorityState::Last,
            };
            let trusted = authority.trusted();
            change.add_authority(trusted, state, now).await?;
        }
        change.finish().await?;
        self.read_credentials().await?;
        if let Some(signs) = self.credentials.signs() {
            info!(authority = %signs, file = %file.display(), "this mesh has a certificate authority of its own; keep its file");
        }
        Ok(())
    }

    /// Makes an authority in the place of one whose key is lost. No node has credentials afterwards: each has to join
    /// again, and is the node that it was if it shows the key that it registered with.
    ///
    /// # Errors
    ///
    /// [`AuthoritiesError`].
    pub async fn replace_lost_authority(&self, file: &Path) -> Result<(), AuthoritiesError> {
        self.authorities.have(file, authority_file::read(file)?);
        let signs = self.credentials.signs();
        if signs.is_none_or(|signs| self.authorities.find(signs).is_some()) {
            warn!(
                "--new-authority has no effect: the key of the certificate authority is not lost"
            );
            return self.open_authorities(file).await;
        }
        let trust = self.credentials.trust();
        let mesh = trust.map_or_else(MeshId::make, |trust| trust.mesh().clone());
        let now = unix_seconds();
        let authority = Authority::make(mesh, now)?;
        let trusted = authority.trusted().clone();
        authority_file::replace(file, &[authority])?;
        self.authorities.have(file, authority_file::read(file)?);
        let _turn = self.turn.lock().await;
        let mut change = self.store.begin_credentials().await?;
        for state in [
            AuthorityState::Next,
            AuthorityState::Signs,
            AuthorityState::Last,
        ] {
            change.remove_authorities(state).await?;
        }
        let state = AuthorityState::Signs;
        change.add_authority(&trusted, state, now).await?;
        change.forget_nodes().await?;
        let doer = Doer {
            who: "admin".to_owned(),
            source: "--new-authority".to_owned(),
            mandate: Mandate::own(),
        };
        let subject = format!("authority {}", trusted.key());
        change
            .keep_audit(&doer.did("replace lost authority", &subject))
            .await?;
        change.finish().await?;
        self.credentials.read_anew();
        self.read_credentials().await?;
        warn!(authority = %trusted.key(),
            "a new certificate authority is in the place of the lost one: every node has to join again \
             (quilt-mesh-control token create --uses N)");
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
    #[must_use]
    pub fn export_authorities(&self, doer: &Doer) -> String {
        self.note(doer.did("export authority", ""));
        self.authorities.text()
    }

    /// Takes the keys of authorities that another replica made.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn import_authorities(&self, pem: &str, doer: &Doer) -> Result<(), CredentialError> {
        let mut given = authority_file::parse(pem)?;
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
        self.note(doer.did("import authority", &names.join(" ")));
        // What shows certificates looks again which it can sign.
        self.credentials.tell();
        Ok(())
    }

    fn trusted_keys(&self) -> Vec<KeyDigest> {
        let state = self.credentials.state();
        let authorities = state.authorities.iter();
        authorities.map(|it| it.trusted.key()).collect()
    }

    /// Makes the authority that signs next, and has it trusted.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn prepare_rotation(&self, doer: &Doer) -> Result<KeyDigest, CredentialError> {
        let mesh = self.signer()?.mesh().clone();
        let _turn = self.turn.lock().await;
        if self.trusted_keys().len() > 1 {
            let why = "one authority is taking the place of another already; see quilt-mesh-control ca show";
            return Err(CredentialError::NotNow(why.to_owned()));
        }
        let now = unix_seconds();
        let next = Authority::make(mesh, now)?;
        let trusted = next.trusted().clone();
        // First, or the key might be lost of what is trusted.
        self.authorities
            .add(vec![next])
            .map_err(|error| CredentialError::NoAuthority(error.to_string()))?;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        let state = AuthorityState::Next;
        change.add_authority(&trusted, state, now).await?;
        let subject = format!("authority {}", trusted.key());
        change
            .keep_audit(&doer.did("prepare rotation", &subject))
            .await?;
        change.finish().await?;
        self.read_credentials().await?;
        Ok(trusted.key())
    }

    /// Has the next authority sign in the place of the present one.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotNow`], also while nodes that are up do not trust it yet, unless forced.
    pub async fn activate_rotation(
        &self,
        force: bool,
        doer: &Doer,
    ) -> Result<KeyDigest, CredentialError> {
        let next = self.authority_in(AuthorityState::Next).ok_or_else(|| {
            CredentialError::NotNow("there is none that signs next; prepare one first".to_owned())
        })?;
        if self.authorities.find(next).is_none() {
            return Err(CredentialError::NoAuthority(format!(
                "its file lacks the key of the next authority {next}; see quilt-mesh-control ca import"
            )));
        }
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        let late = change.nodes_without_word_of(next).await?;
        if !late.is_empty() && !force {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(format!(
                "{} that are up do not trust the next authority yet, which takes them up to four heartbeats: {}",
                nodes(late.len()),
                named(&late)
            )));
        }
        change
            .move_authorities(AuthorityState::Signs, AuthorityState::Last)
            .await?;
        change
            .move_authorities(AuthorityState::Next, AuthorityState::Signs)
            .await?;
        let subject = format!("authority {next}");
        change
            .keep_audit(&doer.did("activate rotation", &subject))
            .await?;
        change.finish().await?;
        self.read_credentials().await?;
        Ok(next)
    }

    /// Trusts the last authority no longer.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotNow`], also while certificates that it signed are in use, unless forced.
    pub async fn finish_rotation(&self, force: bool, doer: &Doer) -> Result<(), CredentialError> {
        let last = self.authority_in(AuthorityState::Last).ok_or_else(|| {
            CredentialError::NotNow("no authority was replaced by another".to_owned())
        })?;
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        let late = change.nodes_of_issuer(last, unix_seconds()).await?;
        if !late.is_empty() && !force {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(format!(
                "{} still have certificates of the last authority, and would be shut out: {}. Those that are up renew \
                 theirs within four heartbeats; one that is off has to come back first, or to join again by a token",
                nodes(late.len()),
                named(&late)
            )));
        }
        change.remove_authorities(AuthorityState::Last).await?;
        let subject = format!("authority {last}");
        change
            .keep_audit(&doer.did("finish rotation", &subject))
            .await?;
        change.finish().await?;
        self.read_credentials().await?;
        let kept = self.authorities.keep(&self.trusted_keys());
        if let Err(error) = kept {
            warn!(%error, "the key of an authority that is trusted no longer stays in its file");
        }
        Ok(())
    }

    fn authority_in(&self, wanted: AuthorityState) -> Option<KeyDigest> {
        let state = self.credentials.state();
        let found = state.authorities.iter().find(|it| it.state == wanted);
        found.map(|it| it.trusted.key())
    }
}

fn nodes(count: usize) -> String {
    match count {
        1 => "1 node".to_owned(),
        _ => format!("{count} nodes"),
    }
}

fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(MOST_NAMED)].join(", ");
    match names.len() > MOST_NAMED {
        true => format!("{shown}, …"),
        false => shown,
    }
}
