//! How TLS is set up on both sides.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, DistinguishedName, Error, RootCertStore};

use crate::control_plane_check::ControlPlaneCheck;

/// The organisation in the subject of every authority of a mesh. Clients that check by such an authority name it, and
/// are shown the certificate that it signed.
pub(crate) const ORGANISATION: &str = "Quilt Mesh";

/// The cryptography of ring.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// `O=Quilt Mesh` in DER, which is what a client that checks by the mesh's authorities says it goes by.
#[must_use]
pub fn hint() -> DistinguishedName {
    // SEQUENCE of one SET of one SEQUENCE: OID 2.5.4.10, UTF8String. Each length is below 128.
    let value = ORGANISATION.as_bytes();
    let n = u8::try_from(value.len()).unwrap_or_default();
    let mut der = vec![0x30, n + 11, 0x31, n + 9, 0x30, n + 7];
    der.extend([0x06, 0x03, 0x55, 0x04, 0x0a, 0x0c, n]);
    der.extend(value);
    DistinguishedName::from(der)
}

/// A client that checks the control plane so, and shows `identity` if it is asked for one: a certificate and its key, in
/// PEM.
///
/// # Errors
///
/// Certificate and key cannot be read, or do not belong together.
pub fn client(
    check: Arc<ControlPlaneCheck>,
    identity: Option<(&str, &str)>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(check);
    with_identity(builder, identity)
}

/// A client that checks by name, with one of the authorities in `roots`, in PEM: for a control plane with a certificate
/// of one's own.
///
/// # Errors
///
/// What is given cannot be read, or certificate and key do not belong together.
pub fn client_of_own_authority(
    roots: &str,
    identity: Option<(&str, &str)>,
) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(certificate.map_err(|error| Error::General(error.to_string()))?)?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier);
    with_identity(builder, identity)
}

fn with_identity(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    identity: Option<(&str, &str)>,
) -> Result<ClientConfig, Error> {
    let Some((certificate, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)
}

/// Certificates in PEM.
///
/// # Errors
///
/// There is none, or one that cannot be read.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::General("no certificate in PEM".to_owned())),
        Err(error) => Err(Error::General(error.to_string())),
    }
}

/// A private key in PEM.
///
/// # Errors
///
/// It cannot be read.
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| Error::General(error.to_string()))
}
