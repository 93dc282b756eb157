//! The file that holds the keys of a mesh's authorities: certificate and private key of each, one after another, and before
//! each a line that says what it does (`# state: signs`). Who reads PEM passes over that line; files of before have none.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::{self, SectionKind};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use crate::authority::{Authority, AuthorityError};
use crate::authority_state::AuthorityState;
use crate::secret_file::{self, SecretFileError};
use crate::trust::pem as to_pem;

/// What stands before the state of an authority, on a line of its own.
const STATE: &str = "# state: ";

/// An authority as it stands in the file.
#[derive(Debug, Clone)]
pub struct FiledAuthority {
    /// The authority with its key.
    pub authority: Arc<Authority>,
    /// What it did when the file was written; `None`: the file does not say.
    pub state: Option<AuthorityState>,
}

impl FiledAuthority {
    /// One of which it is known what it does.
    #[must_use]
    pub fn new(authority: Authority, state: AuthorityState) -> Self {
        Self {
            authority: Arc::new(authority),
            state: Some(state),
        }
    }

    fn text(&self) -> String {
        let state = self.state.map(|it| format!("{STATE}{}\n", it.as_str()));
        format!("{}{}", state.unwrap_or_default(), self.authority.pem())
    }
}

impl From<Authority> for FiledAuthority {
    fn from(authority: Authority) -> Self {
        Self {
            authority: Arc::new(authority),
            state: None,
        }
    }
}

impl Deref for FiledAuthority {
    type Target = Authority;

    fn deref(&self) -> &Authority {
        &self.authority
    }
}

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
pub fn read(path: &Path) -> Result<Vec<FiledAuthority>, AuthorityFileError> {
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

/// Reads authorities from text. What is said of a state that is none counts as not said.
///
/// # Errors
///
/// [`AuthorityError`].
pub fn parse(text: &str) -> Result<Vec<FiledAuthority>, AuthorityError> {
    let mut authorities = Vec::new();
    let mut states = states(text);
    let mut certificate = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) =
            section.map_err(|error: pem::Error| AuthorityError::Text(error.to_string()))?;
        match (kind, certificate.take()) {
            (SectionKind::Certificate, None) => certificate = Some(CertificateDer::from(der)),
            (SectionKind::PrivateKey, Some(certificate)) => {
                let key = to_pem("PRIVATE KEY", &der);
                authorities.push(FiledAuthority {
                    authority: Arc::new(Authority::read(certificate, &key)?),
                    state: states.next().flatten(),
                });
            }
            _ => return Err(unpaired()),
        }
    }
    match certificate {
        Some(_) => Err(unpaired()),
        None => Ok(authorities),
    }
}

/// What is said before each certificate.
fn states(text: &str) -> impl Iterator<Item = Option<AuthorityState>> {
    let mut said = None;
    text.lines().filter_map(move |line| {
        if let Some(state) = line.trim().strip_prefix(STATE) {
            said = state.parse().ok();
        }
        line.starts_with("-----BEGIN CERTIFICATE-----")
            .then(|| said.take())
    })
}

fn unpaired() -> AuthorityError {
    AuthorityError::Text("a certificate without its private key, or the other way round".to_owned())
}

/// As they stand in the file.
#[must_use]
pub fn text(authorities: &[FiledAuthority]) -> String {
    authorities.iter().map(FiledAuthority::text).collect()
}

/// Writes the file, in the place of one that may be there.
///
/// # Errors
///
/// [`SecretFileError`].
pub fn replace(path: &Path, authorities: &[FiledAuthority]) -> Result<(), SecretFileError> {
    secret_file::replace(path, &text(authorities))
}

/// Writes the file if there is none. Whether it did.
///
/// # Errors
///
/// [`SecretFileError`].
pub fn create(path: &Path, authorities: &[FiledAuthority]) -> Result<bool, SecretFileError> {
    secret_file::create(path, &text(authorities))
}
