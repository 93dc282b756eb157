//! The key that a node makes itself, and never gives away.

use std::path::Path;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};

use crate::key_digest::KeyDigest;
use crate::secret_file::{self, SecretFileError};

/// A node's key: the certificates that it gets are for it.
pub struct NodeKeyPair(KeyPair);

impl std::fmt::Debug for NodeKeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKeyPair({})", self.digest())
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum NodeKeyPairError {
    /// Its file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file holds something else. It is left as it is.
    #[error(
        "{0} does not hold a private key in PEM; remove it, and let the node join again with a token made for it"
    )]
    Damaged(String),
    /// None can be made.
    #[error("no key could be made: {0}")]
    Make(String),
}

impl NodeKeyPair {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// [`NodeKeyPairError::Make`].
    pub fn make() -> Result<Self, NodeKeyPairError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|error| NodeKeyPairError::Make(error.to_string()))
    }

    /// Reads the key in the file; `None`: there is no file.
    ///
    /// # Errors
    ///
    /// [`NodeKeyPairError::File`], also when others than the owner may read it, and [`NodeKeyPairError::Damaged`].
    pub fn read(path: &Path) -> Result<Option<Self>, NodeKeyPairError> {
        let Some(text) = secret_file::read(path)? else {
            return Ok(None);
        };
        let damaged = |_| NodeKeyPairError::Damaged(path.display().to_string());
        KeyPair::from_pem_and_sign_algo(&text, &PKCS_ECDSA_P256_SHA256)
            .map(|key| Some(Self(key)))
            .map_err(damaged)
    }

    /// Writes it, in the place of one that may be there.
    ///
    /// # Errors
    ///
    /// [`SecretFileError`].
    pub fn write(&self, path: &Path) -> Result<(), SecretFileError> {
        secret_file::replace(path, &self.pem())
    }

    /// The private key in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The digest of the public key.
    #[must_use]
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.0.subject_public_key_info())
    }

    /// Asks for a certificate (RFC 2986), in PEM: it shows that one has the key, and says nothing else, because nothing
    /// else would be believed.
    ///
    /// # Errors
    ///
    /// [`NodeKeyPairError::Make`].
    pub fn request(&self) -> Result<String, NodeKeyPairError> {
        let mut nothing = CertificateParams::default();
        nothing.distinguished_name = DistinguishedName::new();
        let request = nothing.serialize_request(&self.0);
        request
            .and_then(|request| request.pem())
            .map_err(|error| NodeKeyPairError::Make(error.to_string()))
    }
}
