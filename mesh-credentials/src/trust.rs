//! The authorities that are trusted: one, or two while one takes the place of another.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use sha2::{Digest as _, Sha256};

use crate::certificate::{CertificateError, Presented};
use crate::key_digest::KeyDigest;
use crate::name::{MeshId, Name};

/// More authorities than that are no rotation.
const MOST: usize = 8;

/// An authority as others know it: its certificate.
#[derive(Debug, Clone)]
pub struct Trusted {
    /// What it says.
    pub presented: Presented,
    /// The certificate itself.
    pub der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
}

impl PartialEq for Trusted {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Trusted {}

/// Why there is nobody to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The text is no PEM.
    #[error("not certificates in PEM (RFC 7468): {0}")]
    Pem(String),
    /// One of the certificates is none of a mesh.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// One of them is not an authority's.
    #[error("the certificate of {0} is not that of an authority")]
    NoAuthority(String),
    /// They are of several meshes.
    #[error("authorities of two meshes, {0} and {1}")]
    Meshes(MeshId, MeshId),
    /// None, or too many.
    #[error("{0} authorities, where there are 1 to {MOST}")]
    Number(usize),
}

impl Trusted {
    /// Reads an authority's certificate.
    ///
    /// # Errors
    ///
    /// [`TrustError`].
    pub fn read(der: CertificateDer<'static>) -> Result<Self, TrustError> {
        let presented = Presented::read(&der)?;
        if !matches!(presented.name, Name::Authority { .. }) {
            return Err(TrustError::NoAuthority(presented.name.to_string()));
        }
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_| CertificateError::Form)?
            .to_owned();
        Ok(Self {
            presented,
            der,
            anchor,
        })
    }

    /// The digest of its key.
    #[must_use]
    pub fn key(&self) -> KeyDigest {
        self.presented.key
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem_of(&self.der)
    }

    pub(crate) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }
}

/// Those that are trusted, of one mesh. Clones share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust(Arc<[Trusted]>);

impl Trust {
    /// These, in this order.
    ///
    /// # Errors
    ///
    /// [`TrustError::Number`] and [`TrustError::Meshes`].
    pub fn new(authorities: Vec<Trusted>) -> Result<Self, TrustError> {
        if !(1..=MOST).contains(&authorities.len()) {
            return Err(TrustError::Number(authorities.len()));
        }
        let mesh = authorities[0].presented.name.mesh();
        for other in &authorities {
            let other = other.presented.name.mesh();
            if other != mesh {
                return Err(TrustError::Meshes(mesh.clone(), other.clone()));
            }
        }
        Ok(Self(authorities.into()))
    }

    /// Reads certificates in PEM, one after another.
    ///
    /// # Errors
    ///
    /// [`TrustError`].
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
        let mut authorities = Vec::new();
        for certificate in certificates.take(MOST + 1) {
            let certificate = certificate.map_err(|error| TrustError::Pem(error.to_string()))?;
            authorities.push(Trusted::read(certificate)?);
        }
        Self::new(authorities)
    }

    /// The certificates in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.iter().map(Trusted::pem).collect()
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> &MeshId {
        self.0[0].presented.name.mesh()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Trusted> {
        self.0.iter()
    }

    /// The one with this key.
    #[must_use]
    pub fn find(&self, key: KeyDigest) -> Option<&Trusted> {
        self.iter().find(|trusted| trusted.key() == key)
    }

    /// Changes when others are trusted, or another one signs: who has seen it knows whether there is something to learn.
    #[must_use]
    pub fn digest(&self, signs: KeyDigest) -> String {
        let mut keys: Vec<KeyDigest> = self.iter().map(Trusted::key).collect();
        keys.sort_unstable();
        let mut text = format!("{signs}");
        for key in keys {
            // Writing to a string does not fail.
            let _ = write!(text, " {key}");
        }
        let digest = Sha256::digest(text.as_bytes());
        data_encoding::BASE32_NOPAD_NOCASE
            .encode(&digest[..10])
            .to_ascii_lowercase()
    }
}

/// A certificate in PEM.
#[must_use]
pub fn pem_of(der: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", der)
}

/// RFC 7468 section 2.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in data_encoding::BASE64.encode(der).as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
