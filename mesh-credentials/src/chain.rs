//! Whether a certificate was signed by a trusted authority, for what it is shown for (RFC 5280 section 6).

use std::time::Duration;

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::Presented;
use crate::trust::Trusted;

/// What ECDSA on P-256 is verified with.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[webpki::ring::ECDSA_P256_SHA256];

/// For what a certificate is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// By a control plane, to whoever connects.
    ByControlPlane,
    /// By a node, to the control plane.
    ByNode,
}

/// Verifies that one of `authorities` signed `certificate` for this use, at a time at which it holds: whether that is
/// now is for the caller to judge, who can say more about it. No authority of ours signs another, so there is nothing
/// between.
///
/// # Errors
///
/// As TLS says it.
pub(crate) fn verify<'a>(
    certificate: &CertificateDer<'_>,
    authorities: impl Iterator<Item = &'a Trusted>,
    shown: Shown,
) -> Result<Presented, Error> {
    let presented = Presented::read(certificate).map_err(|error| other(error.clone()))?;
    let anchors: Vec<TrustAnchor<'_>> = authorities
        .map(|trusted| trusted.anchor().clone())
        .collect();
    let parsed = EndEntityCert::try_from(certificate)
        .map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let usage = match shown {
        Shown::ByControlPlane => KeyUsage::server_auth(),
        Shown::ByNode => KeyUsage::client_auth(),
    };
    // In the middle of its life.
    let life = presented.not_after.saturating_sub(presented.not_before);
    let time = presented.not_before.saturating_add(life / 2);
    let time = Duration::from_secs(u64::try_from(time).unwrap_or_default());
    parsed
        .verify_for_usage(
            ALGORITHMS,
            &anchors,
            &[],
            UnixTime::since_unix_epoch(time),
            usage,
            None,
            None,
        )
        .map_err(|error| match error {
            webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer.into(),
            webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose.into(),
            error => other(error),
        })?;
    Ok(presented)
}

/// An error of ours among those of TLS, which shows its words.
pub(crate) fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(OtherError(std::sync::Arc::new(error)))
}
