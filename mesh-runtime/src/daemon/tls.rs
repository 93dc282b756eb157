//! Certificate, key and CA of the TCP door.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_credentials::{
    tls::provider,
    tls_files::{Contents, IDLE_LOOK_INTERVAL, LOOK_INTERVAL, TlsFilesError, TlsFilesWatch},
};
use tokio::time::sleep;
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::SingleCertAndKey,
};

pub(crate) use mesh_credentials::tls_files::TlsFiles;

/// The protocol above TLS (RFC 7301).
const HTTP2: &[u8] = b"h2";

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Files(#[from] TlsFilesError),
    #[error("--tls-ca: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// A bug: ring has what TLS 1.3 needs.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// What goes by the files as they were read last.
#[derive(Debug, Clone)]
struct Current {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

fn of(contents: Contents) -> Result<Current, TlsError> {
    let Contents {
        certified,
        authorities,
    } = contents;
    // Without a caller's certificate there is no connection; without an authority there is no verifier.
    let roots = authorities.unwrap_or_else(|| Arc::new(RootCertStore::empty()));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::clone(&verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // A session that is resumed would not show its certificate again, which may have expired.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Current {
        config: Arc::new(config),
        verifier,
    })
}

/// What callers are shown, and what they are checked by: of the files as they are, as far as they are of use.
#[derive(Debug)]
pub(crate) struct Credentials {
    files: Arc<TlsFilesWatch>,
    current: RwLock<Current>,
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the option.
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let (files, contents) = TlsFilesWatch::open(files)?;
        let current = RwLock::new(of(contents)?);
        Ok(Self { files, current })
    }

    /// For the next caller. Files that have changed are read again; while that fails, what was read last counts.
    pub(crate) async fn for_next(&self) -> Arc<ServerConfig> {
        self.look().await;
        self.current().config
    }

    /// Looks at the files also while nobody calls. Does not end.
    pub(crate) async fn follow(&self) {
        loop {
            sleep(IDLE_LOOK_INTERVAL).await;
            self.look().await;
        }
    }

    /// Whether a caller that has shown these certificates would be let in now.
    pub(crate) fn still_takes(&self, shown: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let Some((certificate, between)) = shown.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        let verifier = self.current().verifier;
        verifier.verify_client_cert(certificate, between, UnixTime::now())?;
        Ok(())
    }

    async fn look(&self) {
        if let Some(turn) = self.files.turn(LOOK_INTERVAL) {
            // A file system may not answer. The caller's deadline is for that, too.
            if let Ok(Some(read)) = tokio::task::spawn_blocking(move || turn.look()).await {
                self.take(read);
            }
        }
    }

    fn current(&self) -> Current {
        // Nobody panics while holding it.
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn take(&self, read: Result<Contents, TlsFilesError>) {
        match read.map_err(TlsError::from).and_then(of) {
            Ok(current) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                tracing::info!(name: "tcp-door-credentials-read", "certificate, key and CA of the TCP door were read again");
            }
            // They may be written one after the other: the next change is looked at as well.
            Err(error) => tracing::warn!(name: "tcp-door-credentials-unusable",
                %error,
                "certificate, key and CA of the TCP door have changed and are of no use: those from before count on"
            ),
        }
    }
}
