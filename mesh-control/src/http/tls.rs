//! TLS: which certificate is shown to whom, and which are taken.
//!
//! TLS 1.3 alone, which has no renegotiation. No session is resumed: a ticket would hold the certificate that the node had
//! when it was made, signed by an authority that may not be trusted any more, and a whole handshake costs less than a
//! millisecond. Nothing is taken before the handshake is over (0-RTT), which could be sent twice.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mesh_credentials::authority::Identity;
use mesh_credentials::certificate::{Presented, not_after};
use mesh_credentials::handshake_signature;
use mesh_credentials::node_check::NodeCheck;
use mesh_credentials::own_certificate::OwnCheck;
use mesh_credentials::tls::{self, certificates, private_key};
use mesh_credentials::tls_files::{
    Contents, IDLE_LOOK_INTERVAL, LOOK_INTERVAL, TlsFiles, TlsFilesError, TlsFilesWatch, takes_away,
};
use mesh_credentials::trust::{Trust, Trusted};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::origin::Certificate;

/// The most of a certificate that a client may show, with what it takes to the authority, in bytes. Ours have 500 to
/// 600; what was taken is kept as long as the connection is.
const LONGEST_CHAIN: usize = 8 * 1024;

/// The same where an authority of one's own signs certificates: one for an RSA key of 4096 bits has 2,000, and there may
/// be three between it and its authority.
const LONGEST_OWN_CHAIN: usize = 16 * 1024;

/// How long a handshake waits for the files to be looked at. A file system may not answer.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// The TLS of a control plane. What it shows and trusts may change while it serves.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    check: Arc<ClientCheck>,
    files: Option<Arc<TlsFilesWatch>>,
    /// Changes when an authority of one's own is trusted no more.
    taken_away: watch::Sender<()>,
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
            own: RwLock::default(),
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
            files: None,
            taken_away: watch::Sender::new(()),
        })
    }

    /// With certificates of one's own: shows what is in these files to all who do not check by the mesh's authorities, and
    /// takes what the authorities in them have signed for nodes. Files that change are read again.
    ///
    /// # Errors
    ///
    /// They are of no use.
    pub fn with_own(mut self, files: TlsFiles) -> Result<Self, TlsFilesError> {
        let (watch, contents) = TlsFilesWatch::open(files)?;
        self.go_by(contents)?;
        self.files = Some(watch);
        Ok(self)
    }

    /// Looks at the files also while nobody connects, until `stop`.
    pub(crate) async fn follow_files(self: Arc<Self>, stop: CancellationToken) {
        while self.files.is_some() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(IDLE_LOOK_INTERVAL) => self.look().await,
            }
        }
        stop.cancelled().await;
    }

    /// Changes whenever an authority of one's own is trusted no more: connections whose certificates one of one's own has
    /// signed end, and who is still trusted comes anew.
    pub(super) fn taken_away(&self) -> watch::Receiver<()> {
        self.taken_away.subscribe()
    }

    /// Goes by what is in the files of one's own certificates now. Each handshake asks for it; the files are looked at once a
    /// second at most.
    pub(super) async fn look(&self) {
        let Some(turn) = self
            .files
            .as_ref()
            .and_then(|files| files.turn(LOOK_INTERVAL))
        else {
            return;
        };
        // Whoever comes while it is looked at goes by what was read before.
        let look = timeout(LOOK_DEADLINE, spawn_blocking(move || turn.look()));
        let Ok(Ok(Some(read))) = look.await else {
            return;
        };
        match read.and_then(|contents| self.go_by(contents)) {
            Ok(()) => {
                info!(name: "own-tls-files-read", "certificate, key and authorities of one's own were read again")
            }
            // They may be written one after the other: the next change is looked at as well.
            Err(error) => warn!(name: "own-tls-files-unusable",
                %error,
                "certificate, key and authorities of one's own have changed and are of no use: those from before count on"
            ),
        }
    }

    /// All of it, or nothing.
    fn go_by(&self, contents: Contents) -> Result<(), TlsFilesError> {
        let Contents {
            certified,
            authorities,
        } = contents;
        let own = authorities.map(Own::new).transpose();
        let own = own.map_err(TlsFilesError::Authorities)?;
        set(&self.shown.own, certified);
        if let Some(own) = own {
            let before = get(&self.check.own);
            let fewer = before.is_some_and(|it| takes_away(&it.authorities, &own.authorities));
            set(&self.check.own, own);
            if fewer {
                self.taken_away.send_replace(());
            }
        }
        Ok(())
    }

    /// What a client has shown, whose handshake is over. By which authority it was taken is found out again: what a
    /// certificate of one's own says of a mesh means nothing.
    pub(super) fn certificate(&self, chain: &[CertificateDer<'_>]) -> Option<Certificate> {
        let (certificate, between) = chain.split_first()?;
        if get(&self.check.own).is_none() {
            // There is no way back from having some, so that it was the mesh's that has signed it.
            return Presented::read(certificate).ok().map(Certificate::Mesh);
        }
        self.check
            .verify(certificate, between, UnixTime::now())
            .ok()
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

    /// The last seconds of the certificates that are shown, in Unix seconds, each with whose it is: that of the mesh, and
    /// one's own.
    pub(crate) fn expiries(&self) -> Vec<(&'static str, i64)> {
        let [mesh, own] = [&self.shown.mesh, &self.shown.own].map(get);
        let shown = [("mesh", mesh), ("own", own)].into_iter();
        let ends =
            shown.filter_map(|(whose, shown)| Some((whose, not_after(shown?.cert.first()?)?)));
        ends.collect()
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

/// What clients may show: nothing, or the certificate of a node.
#[derive(Debug)]
struct ClientCheck {
    /// By the mesh's authorities.
    nodes: RwLock<Option<Arc<NodeCheck>>>,
    /// By those of one's own.
    own: RwLock<Option<Arc<Own>>>,
}

/// Authorities of one's own, and the check by them.
#[derive(Debug)]
struct Own {
    authorities: Arc<RootCertStore>,
    check: OwnCheck,
}

impl Own {
    fn new(authorities: Arc<RootCertStore>) -> Result<Self, Error> {
        let check = OwnCheck::new(Arc::clone(&authorities))?;
        Ok(Self { authorities, check })
    }
}

impl ClientCheck {
    /// Whose certificate it is. What both kinds of authorities have signed is the mesh's.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Certificate, Error> {
        let own = get(&self.own);
        let longest = match own {
            Some(_) => LONGEST_OWN_CHAIN,
            None => LONGEST_CHAIN,
        };
        let length: usize = between.iter().map(|der| der.len()).sum();
        if certificate.len() + length > longest {
            return Err(CertificateError::BadEncoding.into());
        }
        let of_mesh = match get(&self.nodes) {
            Some(nodes) => nodes.verify(certificate),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let error = match (of_mesh, own) {
            (Ok(presented), _) => return Ok(Certificate::Mesh(presented)),
            (Err(error), None) => return Err(error),
            (Err(error), Some(own)) => match own.check.verify(certificate, between, now) {
                Ok(certificate) => return Ok(Certificate::Own(certificate)),
                // What the mesh's authorities have signed is none of one's own, and is wrong for another reason.
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
                    if Presented::read(certificate).is_ok() =>
                {
                    error
                }
                Err(error) => error,
            },
        };
        Err(error)
    }
}

impl ClientCertVerifier for ClientCheck {
    fn offer_client_auth(&self) -> bool {
        get(&self.nodes).is_some() || get(&self.own).is_some()
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
        self.verify(end_entity, intermediates, now)
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
