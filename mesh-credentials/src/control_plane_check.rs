//! How a node, or a person's program, checks that it talks to the mesh's own control plane.

use std::sync::RwLock;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::certificate::Presented;
use crate::chain::{Shown, other, verify};
use crate::handshake_signature;
use crate::key_digest::KeyDigest;
use crate::name::Name;
use crate::tls;
use crate::trust::{Trust, Trusted};

/// Why what answers is not the mesh's control plane, beside what TLS says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTheControlPlane {
    /// The certificate is genuine, but is somebody else's.
    #[error("the certificate is genuine, but {0} is no control plane")]
    OtherRole(Name),
    /// It holds at another time than this host's clock shows.
    #[error(
        "its certificate holds from {} to {}, and this host's clock shows {}: set the clock of this host, or of the \
         control plane's", clock(*.not_before), clock(*.not_after), clock(*.now)
    )]
    Clock {
        /// From when on, in Unix seconds.
        not_before: i64,
        /// Until when.
        not_after: i64,
        /// What this host's clock shows.
        now: i64,
    },
    /// No certificate with the key that the token names is among those that were shown.
    #[error(
        "it does not have the authority that the join token is for: is this the mesh that the token was made in, and \
         does nothing stand between? Or the mesh has another authority since: make a new token"
    )]
    OtherAuthority,
    /// There is no authority to check with.
    #[error("this host knows no authority of the mesh yet")]
    NoTrust,
}

/// A time in Unix seconds, as it stands in what is said to people.
#[must_use]
pub fn clock(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{seconds} s since 1970"))
}

/// By what it is known.
#[derive(Debug, Clone)]
pub enum KnownBy {
    /// One of these authorities signed its certificate.
    Trust(Trust),
    /// An authority with this key did, whose certificate it shows along with its own.
    Key(KeyDigest),
}

/// Checks certificates by authority, use and role, not by the name or address that was called. What it goes by can be
/// changed: connections that begin afterwards are checked by that.
#[derive(Debug)]
pub struct ControlPlaneCheck {
    known_by: RwLock<KnownBy>,
    hints: Vec<DistinguishedName>,
}

impl ControlPlaneCheck {
    /// One that goes by this.
    #[must_use]
    pub fn new(known_by: KnownBy) -> Self {
        Self {
            known_by: RwLock::new(known_by),
            hints: vec![tls::hint()],
        }
    }

    /// Goes by this from now on.
    pub fn go_by(&self, known_by: KnownBy) {
        // Nobody panics while holding the lock.
        let mut current = self.known_by.write().unwrap_or_else(|e| e.into_inner());
        *current = known_by;
    }

    fn known_by(&self) -> KnownBy {
        let current = self.known_by.read().unwrap_or_else(|e| e.into_inner());
        current.clone()
    }
}

impl ServerCertVerifier for ControlPlaneCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = match self.known_by() {
            KnownBy::Trust(trust) => verify(end_entity, trust.iter(), Shown::ByControlPlane)?,
            KnownBy::Key(key) => {
                let authority = shown_authority(intermediates, key)
                    .ok_or_else(|| other(NotTheControlPlane::OtherAuthority))?;
                verify(end_entity, [&authority].into_iter(), Shown::ByControlPlane)?
            }
        };
        judge(&presented, now)?;
        Ok(ServerCertVerified::assertion())
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

    /// Tells a control plane that has another certificate beside the mesh's which of them to show.
    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.hints)
    }
}

/// The authority with this key, if it is among what was shown.
fn shown_authority(shown: &[CertificateDer<'_>], key: KeyDigest) -> Option<Trusted> {
    // Nobody shows more than two.
    shown
        .iter()
        .take(4)
        .filter_map(|der| Trusted::read(der.clone().into_owned()).ok())
        .find(|trusted| trusted.key() == key)
}

fn judge(presented: &Presented, now: UnixTime) -> Result<(), Error> {
    if !matches!(presented.name, Name::ControlPlane { .. }) {
        return Err(other(NotTheControlPlane::OtherRole(presented.name.clone())));
    }
    let (not_before, not_after) = (presented.not_before, presented.not_after);
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if !(not_before..=not_after).contains(&now) {
        return Err(other(NotTheControlPlane::Clock {
            not_before,
            not_after,
            now,
        }));
    }
    Ok(())
}
