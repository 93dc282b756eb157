//! Certificates that an authority of one's own gives to nodes, in place of those that joining makes.
//!
//! Such an authority knows nothing of meshes: what it calls a node is all there is to know it by. A node is what it is
//! called, and no key, so that a certificate for another key is the same node's.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, RootCertStore};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::chain::other;
use crate::key_digest::KeyDigest;
use crate::tls;

/// The longest name, in bytes.
const LONGEST_IDENTITY: usize = 512;

/// What comes before a name in what is digested. No public key begins so: in DER each begins with 0x30.
const DOMAIN: &[u8] = b"own authority\0";

/// What the ids of nodes begin with that are made from their names.
const ID_PREFIX: &str = "own-";

/// How much of the digest of a name is in such an id: 130 bits.
const ID_LENGTH: usize = 26;

/// Who a certificate of one's own authority is for: the first URI among its names, else the first DNS name, in lower
/// case, else its common name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity(String);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Identity {
    /// As the certificate says it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands for a key where nodes are known by keys.
    #[must_use]
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&[DOMAIN, self.0.as_bytes()].concat())
    }
}

/// The id of the node of this name, unless the control plane knows it by another one. `name` is [`Identity::digest`].
#[must_use]
pub fn node_id(name: KeyDigest) -> String {
    let mut digest = name.to_string();
    digest.truncate(ID_LENGTH);
    format!("{ID_PREFIX}{digest}")
}

/// What stands for an authority of one's own where a certificate of a mesh has the key of its authority.
#[must_use]
pub fn issuer() -> KeyDigest {
    // Not what any name is digested to: those go on with a zero byte.
    KeyDigest::of(b"own authority")
}

/// What such a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// Whom it is for.
    pub identity: Identity,
    /// Until when it holds, in Unix seconds.
    pub not_after: i64,
}

/// Why a certificate says of nobody that they are a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnCertificateError {
    /// It is no certificate.
    #[error("not a certificate (X.509 in DER, RFC 5280)")]
    Form,
    /// It names nobody.
    #[error(
        "a certificate without a name to know a node by: a URI or DNS name, or else a common name, of at most \
         {LONGEST_IDENTITY} bytes without control characters"
    )]
    Identity,
}

impl OwnCertificate {
    /// Reads a certificate. That it says so does not make it true: see [`OwnCheck`].
    ///
    /// # Errors
    ///
    /// [`OwnCertificateError`].
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, OwnCertificateError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| OwnCertificateError::Form)?;
        Ok(Self {
            identity: identity(&certificate)?,
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

fn identity(certificate: &X509Certificate<'_>) -> Result<Identity, OwnCertificateError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| OwnCertificateError::Form)?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().next();
    let common = common
        .and_then(|name| name.as_str().ok())
        .map(str::to_owned);
    let identity = uri
        .or(dns)
        .or(common)
        .ok_or(OwnCertificateError::Identity)?;
    let fits = (1..=LONGEST_IDENTITY).contains(&identity.len());
    // They stand in the log.
    match fits && !identity.chars().any(char::is_control) {
        true => Ok(Identity(identity)),
        false => Err(OwnCertificateError::Identity),
    }
}

/// Takes certificates of authorities of one's own, also with others between, that are for clients (RFC 5280 section 6):
/// by the clock, and by what TLS can verify, RSA included.
#[derive(Debug)]
pub struct OwnCheck(Arc<dyn ClientCertVerifier>);

impl OwnCheck {
    /// By these.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn new(roots: Arc<RootCertStore>) -> Result<Self, Error> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider());
        let verifier = verifier.build().map_err(other)?;
        Ok(Self(verifier))
    }

    /// Who it is that shows this certificate, if the key is theirs.
    ///
    /// # Errors
    ///
    /// As TLS says it.
    pub fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<OwnCertificate, Error> {
        self.0.verify_client_cert(certificate, between, now)?;
        OwnCertificate::read(certificate).map_err(other)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn read(common: Option<&str>, names: Vec<SanType>) -> Result<String, OwnCertificateError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = names;
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        OwnCertificate::read(signed.der()).map(|it| it.identity.to_string())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn a_node_is_the_first_uri_else_the_first_dns_name_else_the_common_name() {
        let address = SanType::IpAddress("192.0.2.1".parse().unwrap());
        let all = vec![
            dns("a"),
            address.clone(),
            uri("spiffe://x/1"),
            uri("spiffe://x/2"),
        ];
        assert_eq!(read(Some("c"), all).unwrap(), "spiffe://x/1");
        let names = vec![address.clone(), dns("Node-1.Example"), dns("b")];
        assert_eq!(read(Some("c"), names).unwrap(), "node-1.example");
        assert_eq!(read(Some("c d"), vec![address.clone()]).unwrap(), "c d");
        assert_eq!(read(Some("c"), Vec::new()).unwrap(), "c");
        let none = Err(OwnCertificateError::Identity);
        assert_eq!(read(None, vec![address]), none);
        assert_eq!(read(Some(""), Vec::new()), none);
        assert_eq!(read(Some("a\nb"), Vec::new()), none);
        assert_eq!(read(Some(&"a".repeat(513)), Vec::new()), none);
        let nothing = OwnCertificate::read(&CertificateDer::from(vec![1, 2, 3]));
        assert_eq!(nothing, Err(OwnCertificateError::Form));
    }

    #[test]
    fn ids_are_made_of_names_alone_and_can_stand_in_a_path() {
        let identity = |text: &str| Identity(text.to_owned());
        let id = node_id(identity("a").digest());
        assert_eq!(id, "own-lhpjpc3vozijp4znduqjy67uww");
        assert!(crate::name::is_id(&id));
        assert_ne!(id, node_id(identity("b").digest()));
        assert_ne!(issuer(), identity("").digest());
    }
}
