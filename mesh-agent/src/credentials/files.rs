//! What is kept of the credentials in the state directory.
//!
//! Each file is there as a whole or not at all, and whichever of them are there after a crash fit together: the key is
//! made once; authorities are written before the certificate that wants them, and never without that of before.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_credentials::{
    key_digest::KeyDigest,
    node_key_pair::{NodeKeyPair, NodeKeyPairError},
    secret_file::{self, SecretFileError},
    trust::Trust,
};

use super::{Credentials, CredentialsError};

/// Name of the file with the node's private key.
pub const KEY_FILE: &str = "node.key";
/// Name of the file with its certificate.
pub const CERTIFICATE_FILE: &str = "node.pem";
/// Name of the file with the authorities of its mesh.
pub const AUTHORITIES_FILE: &str = "ca.pem";

/// No such file is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// What stands before the certificates in the file of authorities.
const JOINED_BY: &str = "Joined by the authority ";
const DIGEST: &str = "Digest of this set ";

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialFileError {
    /// There is no directory for them.
    #[error(
        "the state directory {0} does not exist, and a certificate has to be kept; create it, owned by the agent's user, or \
         name another with --state-dir"
    )]
    NoDirectory(PathBuf),
    /// The key.
    #[error(transparent)]
    Key(#[from] NodeKeyPairError),
    /// A file cannot be written.
    #[error(
        "{0}; a certificate has to be kept: make the state directory writable for the agent's user, or name another with \
         --state-dir"
    )]
    Write(#[from] SecretFileError),
    /// A file cannot be read.
    #[error("{}: {cause}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There is no certificate that could be used.
    #[error(transparent)]
    Unusable(#[from] UnusableCertificate),
}

/// Why the certificate that is kept is of no use. A join token leads to another.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} is of no use: {why}; restore what is missing from a backup, or let the node join again, with a token made for it \
     (quilt-mesh-control token create --node NAME)", .path.display()
)]
pub struct UnusableCertificate {
    /// Its file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
}

/// What is there.
#[derive(Debug)]
pub struct Kept {
    /// The node's key.
    pub key: Option<Arc<NodeKeyPair>>,
    /// A certificate for it; none: this host has not joined.
    pub credentials: Result<Option<Credentials>, UnusableCertificate>,
}

/// The files.
#[derive(Debug, Clone)]
pub struct CredentialFiles {
    directory: PathBuf,
}

impl CredentialFiles {
    /// Those in a directory.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether there is a certificate, of whatever use.
    #[must_use]
    pub fn have_certificate(&self) -> bool {
        self.directory.join(CERTIFICATE_FILE).exists()
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// [`CredentialFileError`], if a file cannot be read, or the key is damaged or may be read by others.
    pub fn read(&self) -> Result<Kept, CredentialFileError> {
        if !self.directory.is_dir() {
            return Err(CredentialFileError::NoDirectory(self.directory.clone()));
        }
        let key = NodeKeyPair::read(&self.directory.join(KEY_FILE))?.map(Arc::new);
        let path = self.directory.join(CERTIFICATE_FILE);
        let unusable = |why: String| UnusableCertificate {
            path: path.clone(),
            why,
        };
        let Some(certificate) = read(&path)? else {
            let credentials = Ok(None);
            return Ok(Kept { key, credentials });
        };
        let authorities = read(&self.directory.join(AUTHORITIES_FILE))?;
        let credentials = match (&key, authorities) {
            (None, _) => Err(unusable(format!("{KEY_FILE} beside it is gone"))),
            (_, None) => Err(unusable(format!("{AUTHORITIES_FILE} beside it is gone"))),
            (Some(key), Some(authorities)) => parse(key, certificate, &authorities)
                .map(Some)
                .map_err(|error| unusable(error.to_string())),
        };
        Ok(Kept { key, credentials })
    }

    /// The node's key, which is made if there is none. Of two agents started together the second takes that of the first.
    ///
    /// # Errors
    /// [`CredentialFileError`].
    pub fn key(&self) -> Result<Arc<NodeKeyPair>, CredentialFileError> {
        let path = self.directory.join(KEY_FILE);
        if !self.directory.is_dir() {
            return Err(CredentialFileError::NoDirectory(self.directory.clone()));
        }
        if let Some(key) = NodeKeyPair::read(&path)? {
            return Ok(Arc::new(key));
        }
        let made = NodeKeyPair::make()?;
        if secret_file::create(&path, &made.pem())? {
            return Ok(Arc::new(made));
        }
        let other = NodeKeyPair::read(&path)?.ok_or(CredentialFileError::Read {
            path,
            cause: io::ErrorKind::NotFound.into(),
        })?;
        Ok(Arc::new(other))
    }

    /// Keeps them.
    ///
    /// # Errors
    /// [`SecretFileError`]; what was kept before is then still of use.
    pub fn write(&self, credentials: &Credentials) -> Result<(), SecretFileError> {
        let authorities = authorities_text(credentials);
        secret_file::replace(&self.directory.join(AUTHORITIES_FILE), &authorities)?;
        let path = self.directory.join(CERTIFICATE_FILE);
        secret_file::replace(&path, &credentials.certificate)
    }
}

fn authorities_text(credentials: &Credentials) -> String {
    let mesh = credentials.trust.mesh();
    let mut text = format!("Authorities of the mesh {mesh}, as quilt-mesh-agent was told last.\n");
    let joined_by = credentials.joined_by.map(|key| key.to_string());
    for (name, value) in [
        (JOINED_BY, joined_by.as_ref()),
        (DIGEST, credentials.authorities_digest.as_ref()),
    ] {
        if let Some(value) = value {
            text.push_str(&format!("{name}{value}\n"));
        }
    }
    text.push_str(&credentials.trust.pem());
    text
}

fn parse(
    key: &Arc<NodeKeyPair>,
    certificate: String,
    authorities: &str,
) -> Result<Credentials, CredentialsError> {
    let trust = Trust::from_pem(authorities)?;
    let said = |name: &str| authorities.lines().find_map(|line| line.strip_prefix(name));
    let joined_by = said(JOINED_BY).and_then(|key| key.trim().parse::<KeyDigest>().ok());
    let digest = said(DIGEST).map(|digest| digest.trim().to_owned());
    Credentials::new(Arc::clone(key), certificate, trust, joined_by, digest)
}

/// Reads a file that others may read as well.
fn read(path: &Path) -> Result<Option<String>, CredentialFileError> {
    let failed = |cause| CredentialFileError::Read {
        path: path.to_owned(),
        cause,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
