//! TLS: which certificate is shown to whom, and which are taken.
//!
//! TLS 1.3 alone, which has no renegotiation. No session is resumed: a ticket would hold the certificate that the node had
//! when it was made, signed by an authority that may not be trusted any more, and a whole handshake costs less than a
//! millisecond. Nothing is taken before the handshake is over (0-RTT), which could be sent twice.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_credentials::authority::Identity;
use mesh_credentials::node_check::NodeCheck;
use mesh_credentials::tls::{self, certificates, private_key};
use mesh_credentials::trust::{Trust, Trusted};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};

/// The most of a certificate that a client may show, with what it takes to the authority, in bytes. Ours have 500 to
/// 600; what was taken is kept as long as the connection is.
const LONGEST_CHAIN: usize = 8 * 1024;

/// The TLS of a control plane. What it shows and trusts may change while it serves.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    check: Arc<ClientCheck>,
}

impl Tls {
    /// Without certificates: nobody is answered until there is one.
    ///
    /// # Errors
    ///
    /// A bug: ring has what TLS 1.3 needs.
    pub fn new() -> Result<Self, Error> {
        let shown = Arc::new(Shown {
            hint: tls::hint(),
            mesh: RwLock::default(),
            own: RwLock::default(),
        });
        let check = Arc::new(ClientCheck {
            nodes: RwLock::default(),
        });
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::clone(&check) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            shown,
            check,
        })
    }

    /// Shows this certificate, which `authority` signed, to those that check by the mesh's authorities.
    ///
    /// # Errors
    ///
    /// It cannot be read, or the key does not belong to it.
    pub fn show_mesh(&self, identity: &Identity, authority: &Trusted) -> Result<(), Error> {
        let mut chain = certificates(&identity.certificate)?;
        // Who joins knows no more of it than the digest of its key.
        chain.push(authority.der.clone());
        let key = private_key(&identity.key)?;
        let certified = CertifiedKey::from_der(chain, key, &tls::provider())?;
        set(&self.shown.mesh, certified);
        Ok(())
    }

    /// Shows this certificate with its chain, in PEM, to all others.
    ///
    /// # Errors
    ///
    /// As [`Self::show_mesh`].
    pub fn show_own(&self, chain: &str, key: &str) -> Result<(), Error> {
        let (chain, key) = (certificates(chain)?, private_key(key)?);
        set(
            &self.shown.own,
            CertifiedKey::from_der(chain, key, &tls::provider())?,
        );
        Ok(())
    }

    /// Trusts these to have signed the certificates of nodes, on connections that begin from now on.
    pub fn trust(&self, trust: Trust) {
        set(&self.check.nodes, NodeCheck::new(trust));
    }

    /// `None`: there is no certificate to show.
    pub(super) fn config(&self) -> Option<Arc<ServerConfig>> {
        let has_one = get(&self.shown.mesh).is_some() || get(&self.shown.own).is_some();
        has_one.then(|| Arc::clone(&self.config))
    }
}

fn set<T>(place: &RwLock<Option<Arc<T>>>, value: T) {
    // Nobody panics while holding the lock.
    *place.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(value));
}

fn get<T>(place: &RwLock<Option<Arc<T>>>) -> Option<Arc<T>> {
    place.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What clients are shown.
#[derive(Debug)]
struct Shown {
    hint: DistinguishedName,
    mesh: RwLock<Option<Arc<CertifiedKey>>>,
    own: RwLock<Option<Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let authorities = hello.certificate_authorities().unwrap_or_default();
        let asks_for_mesh = authorities
            .iter()
            .any(|name| name.as_ref() == self.hint.as_ref());
        let (first, second) = match asks_for_mesh {
            true => (&self.mesh, &self.own),
            false => (&self.own, &self.mesh),
        };
        get(first).or_else(|| get(second))
    }
}

/// What clients may show: nothing, or the certificate of a node. Authorities for others than nodes have their place
/// here.
#[derive(Debug)]
struct ClientCheck {
    nodes: RwLock<Option<Arc<NodeCheck>>>,
}

impl ClientCertVerifier for ClientCheck {
    fn offer_client_auth(&self) -> bool {
        get(&self.nodes).is_some()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let length: usize = intermediates.iter().map(|der| der.len()).sum();
        if end_entity.len() + length > LONGEST_CHAIN {
            return Err(CertificateError::BadEncoding.into());
        }
        match get(&self.nodes) {
            Some(nodes) => nodes.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match get(&self.nodes) {
            Some(nodes) => nodes.verify_tls13_signature(message, certificate, signature),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = tls::provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
