//! The certificate that whoever scrapes from elsewhere is shown.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_credentials::{
    tls::provider,
    tls_files::{Contents, LOOK_INTERVAL, TlsFiles, TlsFilesError, TlsFilesWatch},
};
use tokio_rustls::rustls::{self, ServerConfig, sign::SingleCertAndKey};

/// The protocol above TLS (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// By our options, not by those of another door.
    #[error("{}", .0.to_string().replacen("--tls-", "--metrics-tls-", 1))]
    Files(#[from] TlsFilesError),
    /// A bug: ring has what TLS 1.3 needs.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

fn of(contents: Contents) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(contents.certified)));
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// Certificate and key, of the files as they are, as far as they are of use.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: Arc<TlsFilesWatch>,
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let (files, contents) = TlsFilesWatch::open(files)?;
        let current = RwLock::new(of(contents)?);
        Ok(Self { files, current })
    }

    /// For the next connection. Files that have changed are read again; while that fails, what was read last counts.
    pub(crate) async fn for_next(&self) -> Arc<ServerConfig> {
        if let Some(turn) = self.files.turn(LOOK_INTERVAL) {
            // A file system may not answer. The handshake's deadline is for that, too.
            if let Ok(Some(read)) = tokio::task::spawn_blocking(move || turn.look()).await {
                self.take(read);
            }
        }
        // Nobody panics while holding it.
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, read: Result<Contents, TlsFilesError>) {
        match read.map_err(TlsError::from).and_then(of) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!(name: "metrics-tls-files-read", "certificate and key of the metrics' port were read again");
            }
            // They may be written one after the other: the next change is looked at as well.
            Err(error) => tracing::warn!(name: "metrics-tls-files-unusable",
                %error,
                "certificate and key of the metrics' port have changed and are of no use: those from before count on"
            ),
        }
    }
}
