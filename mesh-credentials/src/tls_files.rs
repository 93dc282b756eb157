//! Certificate, key and authorities of one's own, in files that are read again when they have changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

use crate::secret_file::{self, SecretFileError};
use crate::tls::{certificates, private_key, provider};

/// How often whoever serves looks at the files, at most: clients may come by the thousand.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often whoever serves looks at the files while nobody comes: what is trusted no more ends connections that are there.
pub const IDLE_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Where they are, in PEM. In errors they are called by their options, `--tls-cert`, `--tls-key` and `--tls-ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key, which nobody but its owner may read.
    pub key: PathBuf,
    /// The authorities one of which has signed a client's certificate.
    pub authorities: Option<PathBuf>,
}

/// What is in them.
#[derive(Debug)]
pub struct Contents {
    /// The certificate, and those between, with its key.
    pub certified: CertifiedKey,
    /// The authorities, if there is a file of them: at least one.
    pub authorities: Option<Arc<RootCertStore>>,
}

/// Whether one of the authorities of `before` is none of those of `now`: who was let in by it may not go on.
#[must_use]
pub fn takes_away(before: &RootCertStore, now: &RootCertStore) -> bool {
    before.roots.iter().any(|root| !now.roots.contains(root))
}

/// Why they are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// One of them is not.
    #[error("{option} {}: {reason}", .path.display())]
    File {
        /// By which it was given.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS cannot check clients by the authorities.
    #[error("--tls-ca: {0}")]
    Authorities(rustls::Error),
}

impl TlsFiles {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// [`TlsFilesError`], also when others than its owner may read the key, or it is not the certificate's.
    pub fn read(&self) -> Result<Contents, TlsFilesError> {
        let read = |option, path: &Path| {
            let text = fs::read_to_string(path);
            text.and_then(|text| certificates(&text).map_err(io::Error::other))
                .map_err(|error| file(option, path, &error))
        };
        let chain = read("--tls-cert", &self.certificate)?;
        let authorities = match &self.authorities {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in read("--tls-ca", path)? {
                    let added = roots.add(authority);
                    added.map_err(|error| file("--tls-ca", path, &error))?;
                }
                Some(Arc::new(roots))
            }
            None => None,
        };
        let key = match secret_file::read(&self.key) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(file("--tls-key", &self.key, &"there is no such file")),
            // It names the file itself.
            Err(SecretFileError::File { cause, .. }) => {
                return Err(file("--tls-key", &self.key, &cause));
            }
            Err(error) => return Err(file("--tls-key", &self.key, &error)),
        };
        let certified = private_key(&key)
            .and_then(|key| CertifiedKey::from_der(chain, key, &provider()))
            .map_err(|error| file("--tls-key", &self.key, &error))?;
        Ok(Contents {
            certified,
            authorities,
        })
    }

    /// By what a change shows; what is not there is a state as well.
    fn states(&self) -> States {
        let paths = [
            Some(&self.certificate),
            Some(&self.key),
            self.authorities.as_ref(),
        ];
        paths.map(|path| {
            let metadata = fs::metadata(path?).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        })
    }
}

fn file(option: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> TlsFilesError {
    TlsFilesError::File {
        option,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// Time of the last change, length and inode of each file.
type States = [Option<(SystemTime, u64, u64)>; 3];

/// Whether they have changed since they were read.
#[derive(Debug)]
pub struct TlsFilesWatch {
    files: TlsFiles,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    states: States,
    looked: Instant,
    /// Somebody is looking: a file system may not answer.
    looking: bool,
}

/// That somebody has to look whether the files have changed.
#[derive(Debug)]
pub struct Turn(Arc<TlsFilesWatch>);

impl TlsFilesWatch {
    /// Reads the files for the first time.
    ///
    /// # Errors
    ///
    /// [`TlsFilesError`].
    pub fn open(files: TlsFiles) -> Result<(Arc<Self>, Contents), TlsFilesError> {
        // Before they are read, so that no change in between is overlooked.
        let states = files.states();
        let contents = files.read()?;
        let seen = Mutex::new(Seen {
            states,
            looked: Instant::now(),
            looking: false,
        });
        Ok((Arc::new(Self { files, seen }), contents))
    }

    /// Whether it is time to look, so long after somebody did before, and the caller's turn: nobody else's until the answer
    /// is dropped.
    pub fn turn(self: &Arc<Self>, after: Duration) -> Option<Turn> {
        let mut seen = self.lock();
        if seen.looking || seen.looked.elapsed() < after {
            return None;
        }
        seen.looking = true;
        Some(Turn(Arc::clone(self)))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Nobody panics while holding it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// What is in the files, if they have changed since they were looked at before. May block.
    pub fn look(self) -> Option<Result<Contents, TlsFilesError>> {
        let Self(watch) = &self;
        let states = watch.files.states();
        if std::mem::replace(&mut watch.lock().states, states) == states {
            return None;
        }
        Some(watch.files.read())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut seen = self.0.lock();
        seen.looked = Instant::now();
        seen.looking = false;
    }
}
