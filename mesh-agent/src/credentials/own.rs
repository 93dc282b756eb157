//! A certificate of one's own for this node, whose files are read again when they have changed.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use mesh_credentials::{
    certificate,
    tls_files::{TlsFiles, TlsFilesError, TlsFilesWatch},
};
use mesh_problems::catalog::agent::OWN_CERTIFICATE_UNUSABLE;
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use tracing::{info, warn};

use crate::problems::Problems;

/// What each connection shows: the certificate in the files as they are, as far as they are of use.
#[derive(Debug)]
pub struct OwnIdentity {
    files: Arc<TlsFilesWatch>,
    shown: RwLock<Arc<CertifiedKey>>,
    problems: Problems,
}

impl OwnIdentity {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsFilesError`], also when others than its owner may read the key.
    pub fn open(
        certificate: PathBuf,
        key: PathBuf,
        problems: Problems,
    ) -> Result<Self, TlsFilesError> {
        let files = TlsFiles {
            certificate,
            key,
            authorities: None,
        };
        let (files, contents) = TlsFilesWatch::open(files)?;
        let shown = RwLock::new(Arc::new(contents.certified));
        Ok(Self {
            files,
            shown,
            problems,
        })
    }

    /// When what is shown expires, in Unix seconds; nothing if it does not say so in a form that is known.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        shown.cert.first().and_then(certificate::not_after)
    }

    /// Looks whether files that were of no use are now. Connections stay, and none need be opened for long.
    pub fn look_again(&self) {
        if self.problems.has(&OWN_CERTIFICATE_UNUSABLE) {
            self.look();
        }
    }

    fn look(&self) {
        // A node's connections are few, and stay: each has to show what there is.
        let turn = self.files.turn(Duration::ZERO);
        let Some(read) = turn.and_then(|turn| turn.look()) else {
            return;
        };
        match read {
            Ok(contents) => {
                // Nobody panics while holding it.
                let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
                *shown = Arc::new(contents.certified);
                info!(name: "node-own-certificate-read-again", "this node's own certificate was read again");
                self.problems.clear(&OWN_CERTIFICATE_UNUSABLE);
            }
            // They may be written one after the other: the next change is looked at as well.
            Err(error) => {
                warn!(name: "node-own-certificate-changed-no",
                    code = OWN_CERTIFICATE_UNUSABLE.code, %error,
                    "this node's own certificate has changed and is of no use: that from before counts on"
                );
                let observed = error.to_string();
                self.problems.raise(&OWN_CERTIFICATE_UNUSABLE, observed);
            }
        }
    }
}

impl ResolvesClientCert for OwnIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.look();
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
