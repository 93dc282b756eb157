//! By what this node shows who it is, and knows the control plane.

use std::sync::Arc;

use mesh_credentials::{
    certificate::{CertificateError, Presented},
    key_digest::KeyDigest,
    name::Name,
    node_check::NodeCheck,
    node_key_pair::NodeKeyPair,
    tls,
    trust::{Trust, TrustError},
};
use mesh_rest::join::Joined;
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier as _,
};

use crate::excerpt::Excerpt;

pub mod files;
pub mod own;

/// A certificate that is this node's, with its key, and the authorities of its mesh.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The key that the certificate is for.
    pub key: Arc<NodeKeyPair>,
    /// The certificate in PEM.
    pub certificate: String,
    /// What it says.
    pub presented: Presented,
    /// Which node it says this is.
    pub node_id: String,
    /// Who is trusted.
    pub trust: Trust,
    /// The authority that the join token named: its token is known again after it has been replaced by another.
    pub joined_by: Option<KeyDigest>,
    /// What the control plane calls its set of authorities.
    pub authorities_digest: Option<String>,
}

/// Why what the control plane answered, or a file holds, is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The authorities.
    #[error("its authorities: {0}")]
    Authorities(#[from] TrustError),
    /// The certificate.
    #[error("its certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// The certificate was not signed by one of the authorities, for a node; or is no PEM.
    #[error("its certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// The certificate is not of a node of the authorities' mesh.
    #[error("its certificate is for {0}, and not for a node of the mesh {1}")]
    OtherName(Name, String),
    /// The certificate is for another key.
    #[error("its certificate is for the key {0}, and this host's is {1}")]
    OtherKey(KeyDigest, KeyDigest),
    /// The certificate is for another node than was said.
    #[error("its certificate is for the node {certificate}, and it speaks of {}", Excerpt(.said))]
    OtherNode {
        /// The node of the certificate.
        certificate: String,
        /// The node that was said.
        said: String,
    },
    /// The certificate is of another mesh than the one before.
    #[error("its certificate is of the mesh {0}, and this node is of {1}")]
    OtherMesh(String, String),
    /// The authority that the token named is not among them.
    #[error("the authority that the join token is for is not among those that it names")]
    OtherAuthority,
}

/// What an answer has to fit to.
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// The token that it answers is for this authority.
    Joining(KeyDigest),
    /// It replaces these.
    Renewing(&'a Credentials),
}

impl Credentials {
    /// Takes what was answered to the owner of `key`, if it is what was asked for.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn answered(
        key: Arc<NodeKeyPair>,
        answer: &Joined,
        expected: Expected<'_>,
    ) -> Result<Self, CredentialsError> {
        let trust = Trust::from_pem(&answer.authorities)?;
        let joined_by = match expected {
            Expected::Joining(authority) => Some(authority),
            Expected::Renewing(before) => before.joined_by,
        };
        let digest = Some(answer.authorities_digest.clone());
        let taken = Self::new(key, answer.certificate.clone(), trust, joined_by, digest)?;
        if taken.node_id != answer.node_id {
            return Err(CredentialsError::OtherNode {
                certificate: taken.node_id,
                said: answer.node_id.clone(),
            });
        }
        match expected {
            Expected::Joining(authority) if taken.trust.find(authority).is_none() => {
                Err(CredentialsError::OtherAuthority)
            }
            Expected::Renewing(before) if before.trust.mesh() != taken.trust.mesh() => {
                let [now, before] = [&taken, before].map(|of| of.trust.mesh().to_string());
                Err(CredentialsError::OtherMesh(now, before))
            }
            Expected::Renewing(before) if before.node_id != taken.node_id => {
                Err(CredentialsError::OtherNode {
                    certificate: taken.node_id,
                    said: before.node_id.clone(),
                })
            }
            Expected::Joining(_) | Expected::Renewing(_) => Ok(taken),
        }
    }

    /// Those whose parts belong together. Whether the certificate holds *now* is not asked: an expired one can be
    /// replaced.
    fn new(
        key: Arc<NodeKeyPair>,
        certificate: String,
        trust: Trust,
        joined_by: Option<KeyDigest>,
        authorities_digest: Option<String>,
    ) -> Result<Self, CredentialsError> {
        let der = first_certificate(&certificate)?;
        let presented = Presented::read(&der)?;
        let node_id = match &presented.name {
            Name::Node { mesh, node_id } if mesh == trust.mesh() => node_id.clone(),
            other => {
                let mesh = trust.mesh().to_string();
                return Err(CredentialsError::OtherName(other.clone(), mesh));
            }
        };
        if presented.key != key.digest() {
            return Err(CredentialsError::OtherKey(presented.key, key.digest()));
        }
        // As the control plane will check it.
        NodeCheck::new(trust.clone()).verify_client_cert(&der, &[], UnixTime::now())?;
        Ok(Self {
            key,
            certificate,
            presented,
            node_id,
            trust,
            joined_by,
            authorities_digest,
        })
    }

    /// Whether a join token with this authority may be the one that these came by, or one of the same mesh.
    #[must_use]
    pub fn may_come_from(&self, authority: KeyDigest) -> bool {
        self.joined_by == Some(authority) || self.trust.find(authority).is_some()
    }
}

fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, CredentialsError> {
    let certificates = tls::certificates(pem)?;
    certificates.into_iter().next().ok_or_else(|| {
        CredentialsError::Tls(rustls::Error::General("no certificate in PEM".to_owned()))
    })
}

#[cfg(test)]
mod tests;
