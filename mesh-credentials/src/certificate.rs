//! What a certificate of a mesh says.

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::key_digest::KeyDigest;
use crate::name::Name;

/// What a certificate says about whom it is for. That it says so does not make it true, or the certificate valid: see
/// [`crate::trust`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Whom it is for.
    pub name: Name,
    /// Its key.
    pub key: KeyDigest,
    /// The common name of who signed it.
    pub issuer: String,
    /// From when on it holds, in Unix seconds.
    pub not_before: i64,
    /// Until when, in Unix seconds.
    pub not_after: i64,
}

/// Why a certificate is none of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is no certificate.
    #[error("not a certificate (X.509 in DER, RFC 5280)")]
    Form,
    /// It names nobody, or several.
    #[error(
        "a certificate without exactly one name of a mesh (a URI such as spiffe://MESH/node/ID)"
    )]
    Name,
}

/// The last second of any certificate, in Unix seconds; `None`: it is none.
#[must_use]
pub fn not_after(der: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

impl Presented {
    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let certificate = EndEntityCert::try_from(der).map_err(|_| CertificateError::Form)?;
        let mut names = certificate.valid_uri_names();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(CertificateError::Name);
        };
        let name = name.parse().map_err(|_| CertificateError::Name)?;
        let key = KeyDigest::of(&certificate.subject_public_key_info());
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::Form)?;
        let issuer = parsed.issuer().iter_common_name().next();
        let issuer = issuer.and_then(|name| name.as_str().ok());
        Ok(Self {
            name,
            key,
            issuer: issuer.unwrap_or_default().to_owned(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// When to have it made anew: at two thirds of its life, in Unix seconds.
    #[must_use]
    pub fn renew_at(&self) -> i64 {
        let life = self.not_after.saturating_sub(self.not_before);
        self.not_before.saturating_add(life / 3 * 2)
    }
}
