//! The file that holds the keys of a mesh's authorities: certificate and private key of each, one after another.

use std::path::Path;

use rustls_pki_types::pem::{self, SectionKind};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use crate::authority::{Authority, AuthorityError};
use crate::secret_file::{self, SecretFileError};
use crate::trust::pem as to_pem;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityFileError {
    /// The file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// There is no key in it.
    #[error("{path} holds no private key of an authority")]
    NoKey {
        /// The file.
        path: String,
    },
    /// What is in it.
    #[error(
        "{path} does not hold authorities, each a certificate and its private key in PEM: {why}"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// Reads the authorities in the file; none where there is no file.
///
/// # Errors
///
/// [`AuthorityFileError`].
pub fn read(path: &Path) -> Result<Vec<Authority>, AuthorityFileError> {
    let Some(found) = secret_file::look(path)? else {
        return Ok(Vec::new());
    };
    if !has_key(&found.text) {
        // Whoever may read it.
        let path = path.display().to_string();
        return Err(AuthorityFileError::NoKey { path });
    }
    let text = found.only_its_owners(path)?;
    parse(&text).map_err(|error| AuthorityFileError::Damaged {
        path: path.display().to_string(),
        why: error.to_string(),
    })
}

/// Whether there is a private key in a text, or what is left of one.
#[must_use]
pub fn has_key(text: &str) -> bool {
    text.contains("PRIVATE KEY")
}

/// Reads authorities from text.
///
/// # Errors
///
/// [`AuthorityError`].
pub fn parse(text: &str) -> Result<Vec<Authority>, AuthorityError> {
    let mut authorities = Vec::new();
    let mut certificate = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) =
            section.map_err(|error: pem::Error| AuthorityError::Text(error.to_string()))?;
        match (kind, certificate.take()) {
            (SectionKind::Certificate, None) => certificate = Some(CertificateDer::from(der)),
            (SectionKind::PrivateKey, Some(certificate)) => {
                let key = to_pem("PRIVATE KEY", &der);
                authorities.push(Authority::read(certificate, &key)?);
            }
            _ => return Err(unpaired()),
        }
    }
    match certificate {
        Some(_) => Err(unpaired()),
        None => Ok(authorities),
    }
}

fn unpaired() -> AuthorityError {
    AuthorityError::Text("a certificate without its private key, or the other way round".to_owned())
}

/// As they stand in the file.
#[must_use]
pub fn text(authorities: &[Authority]) -> String {
    authorities.iter().map(Authority::pem).collect()
}

/// Writes the file, in the place of one that may be there.
///
/// # Errors
///
/// [`SecretFileError`].
pub fn replace(path: &Path, authorities: &[Authority]) -> Result<(), SecretFileError> {
    secret_file::replace(path, &text(authorities))
}

/// Writes the file if there is none. Whether it did.
///
/// # Errors
///
/// [`SecretFileError`].
pub fn create(path: &Path, authorities: &[Authority]) -> Result<bool, SecretFileError> {
    secret_file::create(path, &text(authorities))
}
