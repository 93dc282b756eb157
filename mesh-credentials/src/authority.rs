//! The mesh's own certificate authority: who has its key decides who is a node.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::key_digest::KeyDigest;
use crate::name::{MeshId, Name};
use crate::tls;
use crate::trust::{TrustError, Trusted, pem_of};

const DAY: i64 = 24 * 60 * 60;

/// How long an authority lives, in seconds: ten years.
pub const AUTHORITY_LIFE: i64 = 3652 * DAY;

/// How long a node's certificate holds, in seconds: seven days.
pub const NODE_LIFE: i64 = 7 * DAY;

/// How long that of a control plane holds, in seconds. It is made anew whenever one starts, and in the middle of its
/// life.
pub const CONTROL_PLANE_LIFE: i64 = 30 * DAY;

/// How long after its end a node's certificate still gets the node a new one, in seconds: the host was off.
pub const GRACE: i64 = 30 * DAY;

/// How far before now what is signed holds, in seconds: clocks differ.
pub const BACKDATED: i64 = 60 * 60;

/// An authority with its key.
pub struct Authority {
    key: KeyPair,
    trusted: Trusted,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.trusted.key())
    }
}

/// The length of an uncompressed point on P-256 (SEC 1 section 2.3.3), in bytes.
const P256_POINT: usize = 65;

/// Why something could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key and the certificate are of two authorities.
    #[error("the private key does not belong to the certificate of the authority {0}")]
    OtherKey(KeyDigest),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] TrustError),
    /// What a host sent to be signed.
    #[error(
        "the request is no certificate request (PKCS #10 in PEM) signed with an ECDSA key on P-256: {0}"
    )]
    Request(String),
    /// It is no text of an authority.
    #[error("{0}")]
    Text(String),
    /// A bug, or the system gives no random numbers.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

fn make(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Make(error.to_string())
}

/// What a host asks to have signed: its public key, and nothing else that would be believed.
#[derive(Debug)]
pub struct Request {
    public_key: rcgen::PublicKey,
    /// The digest of the key.
    pub key: KeyDigest,
}

impl Request {
    /// Reads a request in PEM, and verifies that who made it has the key.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Request`].
    pub fn read(pem: &str) -> Result<Self, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(pem)
            .map_err(|error| AuthorityError::Request(error.to_string()))?;
        let public_key = request.public_key;
        // The algorithm is that of the signature, which says the hash, and not the curve.
        if public_key.algorithm() != &PKCS_ECDSA_P256_SHA256
            || public_key.der_bytes().len() != P256_POINT
        {
            let other = "its key is of another kind".to_owned();
            return Err(AuthorityError::Request(other));
        }
        let key = KeyDigest::of(&public_key.subject_public_key_info());
        Ok(Self { public_key, key })
    }
}

/// A certificate with its private key, both in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// Makes one, of a new mesh or in the place of another of `mesh`. `now` is Unix seconds.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Make`].
    pub fn make(mesh: MeshId, now: i64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let digest = KeyDigest::of(&key.subject_public_key_info());
        let mut params = params(
            &format!("authority {}", digest.short()),
            now,
            AUTHORITY_LIFE,
        )?;
        // Names of its own, so that a certificate says which of two signed it.
        params.subject_alt_names = vec![uri(&Name::Authority { mesh })?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(make)?;
        let trusted = Trusted::read(certificate.der().clone())?;
        Ok(Self { key, trusted })
    }

    /// That of a certificate and its private key in PEM.
    ///
    /// # Errors
    ///
    /// They cannot be read, or do not belong together.
    pub fn read(certificate: CertificateDer<'static>, key: &str) -> Result<Self, AuthorityError> {
        let trusted = Trusted::read(certificate)?;
        let key =
            KeyPair::from_pem_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256).map_err(|error| {
                AuthorityError::Text(format!("a private key cannot be read: {error}"))
            })?;
        if KeyDigest::of(&key.subject_public_key_info()) != trusted.key() {
            return Err(AuthorityError::OtherKey(trusted.key()));
        }
        Ok(Self { key, trusted })
    }

    /// As others know it.
    #[must_use]
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// The mesh that it is of.
    #[must_use]
    pub fn mesh(&self) -> &MeshId {
        self.trusted.presented.name.mesh()
    }

    /// Its certificate and key in PEM, one after the other.
    #[must_use]
    pub fn pem(&self) -> String {
        format!("{}{}", self.trusted.pem(), self.key.serialize_pem())
    }

    /// Signs that whoever has the key of `request` is this node. It can be shown to a control plane, and by none.
    /// The certificate, in PEM.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Make`].
    pub fn sign_node(
        &self,
        request: &Request,
        node_id: &str,
        now: i64,
    ) -> Result<String, AuthorityError> {
        let mut params = params(&format!("node {node_id}"), now, NODE_LIFE)?;
        let (mesh, node_id) = (self.mesh().clone(), node_id.to_owned());
        params.subject_alt_names = vec![uri(&Name::Node { mesh, node_id })?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &request.public_key)
    }

    /// Makes a key, and signs that whoever has it is a control plane of the mesh, which is also known by these names and
    /// addresses, for those that check by name.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Make`].
    pub fn sign_control_plane(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        now: i64,
    ) -> Result<Identity, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let mut params = params("control plane", now, CONTROL_PLANE_LIFE)?;
        let mesh = self.mesh().clone();
        params.subject_alt_names = vec![uri(&Name::ControlPlane { mesh })?];
        for name in names {
            // A host name that is none in DNS cannot be checked by either.
            if let Ok(name) = name.as_str().try_into() {
                params.subject_alt_names.push(SanType::DnsName(name));
            }
        }
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(Identity {
            certificate: self.sign(params, &key)?,
            key: key.serialize_pem(),
        })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<String, AuthorityError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.trusted.der, &self.key).map_err(make)?;
        let certificate = params.signed_by(key, &issuer).map_err(make)?;
        Ok(pem_of(certificate.der()))
    }
}

fn params(name: &str, now: i64, life: i64) -> Result<CertificateParams, AuthorityError> {
    let time = |seconds| {
        OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|error| AuthorityError::Make(format!("the clock of this host: {error}")))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::OrganizationName, tls::ORGANISATION);
    subject.push(DnType::CommonName, name);
    params.not_before = time(now.saturating_sub(BACKDATED))?;
    params.not_after = time(now.saturating_add(life))?;
    Ok(params)
}

fn uri(name: &Name) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(name.to_string().try_into().map_err(make)?))
}

#[cfg(test)]
mod tests;
