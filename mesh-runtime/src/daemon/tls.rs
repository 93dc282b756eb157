//! Certificate, key and CA of the TCP door.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_credentials::{
    tls::provider,
    tls_files::{Contents, LOOK_INTERVAL, TlsFilesError, TlsFilesWatch},
};
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
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

fn config(contents: Contents) -> Result<ServerConfig, TlsError> {
    let Contents {
        certified,
        authorities,
    } = contents;
    // Without a caller's certificate there is no connection; without an authority there is no verifier.
    let roots = authorities.unwrap_or_else(|| Arc::new(RootCertStore::empty()));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // A session that is resumed would not show its certificate again, which may have expired.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What callers are shown, and what they are checked by: of the files as they are, as far as they are of use.
#[derive(Debug)]
pub(crate) struct Credentials {
    files: Arc<TlsFilesWatch>,
    config: RwLock<Arc<ServerConfig>>,
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the option.
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let (files, contents) = TlsFilesWatch::open(files)?;
        let config = RwLock::new(Arc::new(config(contents)?));
        Ok(Self { files, config })
    }

    /// For the next caller. Files that have changed are read again; while that fails, what was read last counts.
    pub(crate) async fn current(&self) -> Arc<ServerConfig> {
        if let Some(turn) = self.files.turn(LOOK_INTERVAL) {
            // A file system may not answer. The caller's deadline is for that, too.
            if let Ok(Some(read)) = tokio::task::spawn_blocking(move || turn.look()).await {
                self.take(read);
            }
        }
        // Nobody panics while holding it.
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, read: Result<Contents, TlsFilesError>) {
        match read.map_err(TlsError::from).and_then(config) {
            Ok(config) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!("certificate, key and CA of the TCP door were read again");
            }
            // They may be written one after the other: the next change is looked at as well.
            Err(error) => tracing::warn!(
                %error,
                "certificate, key and CA of the TCP door have changed and are of no use: those from before count on"
            ),
        }
    }
}
