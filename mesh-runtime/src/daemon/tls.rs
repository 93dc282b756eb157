//! Certificate, key and CA of the TCP door, and how they are read again when their files change.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use mesh_credentials::{
    secret_file::{self, SecretFileError},
    tls::{certificates, private_key, provider},
};
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
};

/// The protocol above TLS (RFC 7301).
const HTTP2: &[u8] = b"h2";

/// How often callers have the files looked at, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Where the three are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The server's certificate, and those between it and its CA.
    pub(crate) certificate: PathBuf,
    /// Its key, which nobody but its owner may read.
    pub(crate) key: PathBuf,
    /// The CAs one of which has signed a caller's certificate.
    pub(crate) authorities: PathBuf,
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{option} {}: {reason}", path.display())]
    File {
        option: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error("--tls-ca: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl TlsFiles {
    fn load(&self) -> Result<ServerConfig, TlsError> {
        let read = |option, path: &Path| {
            let text = fs::read_to_string(path);
            text.and_then(|text| certificates(&text).map_err(io::Error::other))
                .map_err(|error| file(option, path, &error))
        };
        let own = read("--tls-cert", &self.certificate)?;
        let mut roots = RootCertStore::empty();
        for authority in read("--tls-ca", &self.authorities)? {
            let added = roots.add(authority);
            added.map_err(|error| file("--tls-ca", &self.authorities, &error))?;
        }
        let key = match secret_file::read(&self.key) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(file("--tls-key", &self.key, &"there is no such file")),
            // It names the file itself.
            Err(SecretFileError::File { cause, .. }) => {
                return Err(file("--tls-key", &self.key, &cause));
            }
            Err(error) => return Err(file("--tls-key", &self.key, &error)),
        };
        let key = private_key(&key).map_err(|error| file("--tls-key", &self.key, &error))?;
        // Without a caller's certificate there is no connection.
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(own, key)
            .map_err(|error| file("--tls-key", &self.key, &error))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // A session that is resumed would not show its certificate again, which may have expired.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// By what a change shows; what is not there is a state as well.
    fn states(&self) -> States {
        [&self.certificate, &self.key, &self.authorities].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        })
    }
}

fn file(option: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        option,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// Time of the last change, length and inode of each file.
type States = [Option<(SystemTime, u64, u64)>; 3];

/// What callers are shown, and what they are checked by: of the files as they are, as far as they are of use.
#[derive(Debug)]
pub(crate) struct Credentials {
    files: TlsFiles,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    config: Arc<ServerConfig>,
    states: States,
    looked: Instant,
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the option.
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let states = files.states();
        let config = Arc::new(files.load()?);
        let looked = Instant::now();
        let read = Mutex::new(Read {
            config,
            states,
            looked,
        });
        Ok(Self { files, read })
    }

    /// For the next caller. Files that have changed are read again; while that fails, what was read last counts.
    pub(crate) async fn current(self: &Arc<Self>) -> Arc<ServerConfig> {
        if self.lock().looked.elapsed() >= LOOK_INTERVAL {
            let this = Arc::clone(self);
            // A file system may not answer. The caller's deadline is for that, too.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
        Arc::clone(&self.lock().config)
    }

    fn look(&self) {
        let states = self.files.states();
        {
            let mut read = self.lock();
            read.looked = Instant::now();
            if std::mem::replace(&mut read.states, states) == states {
                return;
            }
        }
        match self.files.load() {
            Ok(config) => {
                self.lock().config = Arc::new(config);
                tracing::info!("certificate, key and CA of the TCP door were read again");
            }
            // They may be written one after the other: the next change is looked at as well.
            Err(error) => tracing::warn!(
                %error,
                "certificate, key and CA of the TCP door have changed and are of no use: those from before count on"
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        // Nobody panics while holding it.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
