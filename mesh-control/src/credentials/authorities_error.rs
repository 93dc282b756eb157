//! Why a control plane has no authority that signs, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

use mesh_credentials::authority::AuthorityError;
use mesh_credentials::authority_file::AuthorityFileError;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::secret_file::SecretFileError;

use crate::store::StoreError;

/// Why this control plane has no authority that signs.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file. What is said of it stands here once, and in no cause.
    #[error("{}{}", .0, instead(.0))]
    File(AuthorityFileError),
    /// It cannot be written.
    #[error("the file of the certificate authority cannot be written: {0}; see --state-dir")]
    Write(SecretFileError),
    /// None could be made.
    #[error("no certificate authority could be made: {0}")]
    Make(AuthorityError),
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
    /// It is not lost: others serve with it.
    #[error(
        "the key of the cluster's certificate authority {signs} is not lost: another control plane on this database serves \
         with it. Take it from there (quilt-mesh-control ca export there, ca import here), or stop that one first"
    )]
    NotLost {
        /// The key of the one that signs.
        signs: KeyDigest,
    },
    /// It is not lost: this host has the one that took its place before the database went back.
    #[error(
        "{} has the key of the authority {newer}, which took the place of the database's ({signs}) before the database went \
         back. Start without --new-authority: it is put back then, and nodes' certificates go on",
        .file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// The key that it has.
        newer: KeyDigest,
        /// The key of the one that signs by the database.
        signs: KeyDigest,
    },
    /// Others run, and may have it.
    #[error(
        "{0} other control plane(s) on this database do not say whether they have the key of the cluster's certificate \
         authority; stop them before another takes its place"
    )]
    OthersRun(usize),
    /// The database.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

/// What to do about a file that cannot be used.
fn instead(error: &AuthorityFileError) -> &'static str {
    match error {
        // Says so itself.
        AuthorityFileError::File(_) => "",
        AuthorityFileError::NoKey { .. } => {
            ". Give it the file of another replica, or of a backup (quilt-mesh-control ca import FILE, before it starts); if \
             there is none, start once with --new-authority, which keeps this file under another name"
        }
        AuthorityFileError::Damaged { .. } => {
            ". Move it away, and give it the file of another replica, or of a backup (quilt-mesh-control ca import FILE, before \
             it starts). If the key is lost for good: start once with --new-authority; every node has to join again then"
        }
    }
}

impl From<AuthorityFileError> for AuthoritiesError {
    fn from(error: AuthorityFileError) -> Self {
        Self::File(error)
    }
}

impl From<SecretFileError> for AuthoritiesError {
    fn from(error: SecretFileError) -> Self {
        Self::Write(error)
    }
}

impl From<AuthorityError> for AuthoritiesError {
    fn from(error: AuthorityError) -> Self {
        Self::Make(error)
    }
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
