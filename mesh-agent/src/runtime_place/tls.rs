//! A runtime whose TCP door has TLS, which is asked for a certificate and shown one.

use std::{fmt, fs, io, path::PathBuf, sync::Arc};

use mesh_credentials::{
    secret_file,
    tls::{certificates, client_of_own_authority},
};
use tokio::{net::TcpStream, task::spawn_blocking};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, client::Resumption, pki_types::ServerName},
};

/// The protocol above TLS (RFC 7301).
const HTTP2: &[u8] = b"h2";

/// What is shown to the runtime, and what it is checked by: files in PEM. They are read for each connection, so that new ones
/// need no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeTls {
    /// This agent's certificate, for use as a client.
    pub certificate: PathBuf,
    /// Its key, which nobody but its owner may read.
    pub key: PathBuf,
    /// The CAs one of which has signed the runtime's certificate.
    pub authorities: PathBuf,
}

/// One of the files is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{option} {}: {reason}", path.display())]
pub struct RuntimeTlsError {
    option: &'static str,
    path: PathBuf,
    reason: String,
}

impl RuntimeTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`RuntimeTlsError`], with the option that names the file.
    pub fn load(&self) -> Result<ClientConfig, RuntimeTlsError> {
        let failed = |option, path: &PathBuf, reason: &dyn fmt::Display| RuntimeTlsError {
            option,
            path: path.clone(),
            reason: reason.to_string(),
        };
        let read = |option, path| {
            let text = fs::read_to_string(path);
            let text = text.and_then(|text| match certificates(&text) {
                Ok(_) => Ok(text),
                Err(error) => Err(io::Error::other(error)),
            });
            text.map_err(|error| failed(option, path, &error))
        };
        let certificate = read("--runtime-tls-cert", &self.certificate)?;
        let authorities = read("--runtime-tls-ca", &self.authorities)?;
        let of_key = |reason: &dyn fmt::Display| failed("--runtime-tls-key", &self.key, reason);
        let key = match secret_file::read(&self.key) {
            Ok(Some(key)) => key,
            Ok(None) => return Err(of_key(&"there is no such file")),
            Err(error) => return Err(of_key(&error)),
        };
        let mut config = client_of_own_authority(&authorities, Some((&certificate, &key)))
            .map_err(|error| of_key(&error))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // Each connection is checked anew.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Where a runtime serves TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPlace {
    authority: String,
    name: ServerName<'static>,
    files: RuntimeTls,
}

impl TlsPlace {
    /// At "host:port", with a certificate for that name or address.
    #[must_use]
    pub fn new(authority: String, name: ServerName<'static>, files: RuntimeTls) -> Self {
        Self {
            authority,
            name,
            files,
        }
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) async fn secure(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let files = self.files.clone();
        let config = spawn_blocking(move || files.load()).await?;
        let config = config.map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(self.name.clone(), stream).await
    }
}

impl fmt::Display for TlsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority)
    }
}
