//! What every check of a certificate has to do beside it: see that who shows it has its key. TLS 1.3 alone, by ring.

use std::sync::LazyLock;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::CertificateDer;
use rustls::{DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme};

use crate::tls;

static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| tls::provider().signature_verification_algorithms);

/// Whether the handshake so far was signed by the key of the certificate.
///
/// # Errors
///
/// As TLS says it.
pub fn verify(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, certificate, signature, &ALGORITHMS)
}

/// What a signature of TLS 1.2 is answered, which nobody offers here.
///
/// # Errors
///
/// Always.
pub fn of_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
}

/// The schemes that can be verified.
#[must_use]
pub fn schemes() -> Vec<SignatureScheme> {
    ALGORITHMS.supported_schemes()
}
