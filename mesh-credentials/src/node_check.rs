//! How the control plane checks the certificates that it is shown.

use std::sync::RwLock;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::certificate::Presented;
use crate::chain::{Shown, verify};
use crate::handshake_signature;
use crate::name::Name;
use crate::trust::Trust;

/// Takes no certificate, or that of a node which a trusted authority signed. Whether it holds *now*, and whether the
/// node has been revoked, is judged for each request, where it can be said in words.
#[derive(Debug)]
pub struct NodeCheck {
    trust: RwLock<Trust>,
}

impl NodeCheck {
    /// One that trusts these.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self {
            trust: RwLock::new(trust),
        }
    }

    /// Trusts these from now on, on connections that begin then.
    pub fn go_by(&self, trust: Trust) {
        // Nobody panics while holding the lock.
        *self.trust.write().unwrap_or_else(|e| e.into_inner()) = trust;
    }

    /// Whose certificate it is, if the key is theirs.
    ///
    /// # Errors
    ///
    /// As TLS says it.
    pub fn verify(&self, certificate: &CertificateDer<'_>) -> Result<Presented, Error> {
        let presented = verify(certificate, self.trust().iter(), Shown::ByNode)?;
        match presented.name {
            Name::Node { .. } => Ok(presented),
            _ => Err(CertificateError::InvalidPurpose.into()),
        }
    }

    fn trust(&self) -> Trust {
        let trust = self.trust.read().unwrap_or_else(|e| e.into_inner());
        trust.clone()
    }
}

impl ClientCertVerifier for NodeCheck {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity)
            .map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        handshake_signature::of_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        handshake_signature::verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        handshake_signature::schemes()
    }
}
