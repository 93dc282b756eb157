//! Why a call to the control plane failed.

use std::{error::Error, io, time::Duration};

use reqwest::StatusCode;
use rustls::AlertDescription;

use crate::{
    problem::{ProblemDocument, RETRY_AFTER_MEMBER},
    problem_kind::Kind,
};

/// Why a call to the control plane failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it broke.
    #[error("{call}: {reason}; is the control plane running, and is --control-plane right?")]
    Unreachable {
        /// Method and URL.
        call: String,
        /// The cause, with its causes.
        reason: String,
    },
    /// There is no TLS with who is there.
    #[error("{call}: TLS: {reason}")]
    Tls {
        /// Method and URL.
        call: String,
        /// What TLS says, and what that means.
        reason: String,
        /// Whether it was the other side that broke off, because of the certificate that it was shown.
        certificate_refused: bool,
        /// Whether the other side's certificate was signed by nobody who is trusted here.
        stranger: bool,
    },
    /// No complete answer within the deadline.
    #[error("{call}: no complete answer within {deadline:?}")]
    TimedOut {
        /// Method and URL.
        call: String,
        /// The deadline.
        deadline: Duration,
    },
    /// The control plane does not know this node.
    #[error("{call}: the control plane does not know this node")]
    UnknownNode {
        /// Method and URL.
        call: String,
    },
    /// Another host goes on as this node.
    #[error("{call}: this host is a copy of a node that is alive{detail}")]
    Copy {
        /// Method and URL.
        call: String,
        /// What the body says about it.
        detail: String,
    },
    /// It answered something other than success.
    #[error("{call}: {status}{detail}")]
    Status {
        /// Method and URL.
        call: String,
        /// The HTTP status.
        status: StatusCode,
        /// What the body says about it, or nothing.
        detail: String,
        /// The body, if it is a problem document.
        problem: Option<Box<ProblemDocument>>,
    },
    /// The answer is longer than any real one.
    #[error("{call}: the answer is larger than {limit} bytes; is this a control plane?")]
    TooLarge {
        /// Method and URL.
        call: String,
        /// The limit.
        limit: usize,
    },
    /// The answer is not the JSON of the contract.
    #[error(
        "{call}: the answer is not what the contract says ({reason}); is this a control plane?"
    )]
    Malformed {
        /// Method and URL.
        call: String,
        /// What is wrong.
        reason: String,
    },
}

impl CallError {
    /// Whether another replica of the control plane may answer better: this one fails, or is
    /// none.
    #[must_use]
    pub fn is_of_this_replica(&self) -> bool {
        self.is_transient() || matches!(self, Self::Malformed { .. } | Self::TooLarge { .. })
    }

    /// Whether no control plane answered.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Tls { .. } | Self::TimedOut { .. }
        )
    }

    /// The kind of problem that was answered, if it is one that this version knows.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Status { problem, .. } => problem.as_ref()?.kind(),
            Self::UnknownNode { .. } => Some(Kind::UnknownNode),
            Self::Copy { .. } => Some(Kind::Copy),
            _ => None,
        }
    }

    /// In how much time it wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Status { problem, .. } = self else {
            return None;
        };
        let seconds = problem.as_ref()?.members.get(RETRY_AFTER_MEMBER)?;
        seconds.as_u64().map(Duration::from_secs)
    }

    /// Whether the credentials of who asks are refused, or missing.
    #[must_use]
    pub fn is_of_credentials(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status == StatusCode::UNAUTHORIZED,
            Self::Tls {
                certificate_refused,
                ..
            } => *certificate_refused,
            _ => false,
        }
    }

    /// Whether who is there has a certificate that was signed by nobody who is trusted here.
    #[must_use]
    pub fn is_of_a_stranger(&self) -> bool {
        matches!(self, Self::Tls { stranger: true, .. })
    }

    /// Whether the control plane took offence at what the request said.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.is_client_error())
            && !self.is_transient()
    }

    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => self.is_silence(),
        }
    }
}

/// Why there was no answer.
pub(super) fn unreachable(call: String, error: &reqwest::Error) -> CallError {
    if let Some(tls) = of_tls(error) {
        return CallError::Tls {
            call,
            reason: in_words(tls),
            certificate_refused: is_of_our_certificate(tls),
            stranger: is_of_a_stranger(tls),
        };
    }
    // reqwest's own line repeats the URL, which is in `call` already.
    let cause = Error::source(error);
    CallError::Unreachable {
        call,
        reason: cause.map_or_else(|| error.to_string(), with_causes),
    }
}

/// What TLS says about it, if it was TLS that failed.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // An error of input and output has its contents beside its causes.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| of_tls(inner)) {
            return Some(tls);
        }
        cause = error.source();
    }
    None
}

fn in_words(error: &rustls::Error) -> String {
    match error {
        error if is_of_a_stranger(error) => {
            "the certificate that it shows was signed by nobody who is trusted here: is this the mesh's control plane, \
             and does nothing stand between? If the mesh has another authority since this host was here, start its agent with \
             a new join token (--join; quilt-mesh-control token create)"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.to_string()
        }
        rustls::Error::Other(other) => other.to_string(),
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: is it http:// that is meant?".to_owned()
        }
        error if is_of_our_certificate(error) => {
            format!("it does not take the certificate of this host ({error})")
        }
        error => error.to_string(),
    }
}

fn is_of_a_stranger(error: &rustls::Error) -> bool {
    let unknown = rustls::CertificateError::UnknownIssuer;
    matches!(error, rustls::Error::InvalidCertificate(why) if *why == unknown)
}

/// Alerts by which a server refuses the certificate of a client (RFC 8446 section 6.2). A client of ours never sees
/// those about its own view of the server's.
fn is_of_our_certificate(error: &rustls::Error) -> bool {
    use AlertDescription as A;
    matches!(
        error,
        rustls::Error::AlertReceived(
            A::BadCertificate
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::CertificateExpired
                | A::CertificateUnknown
                | A::UnknownCA
                | A::AccessDenied
                | A::DecryptError
                | A::CertificateRequired
        )
    )
}

/// An error with everything that caused it in one line. HTTP and gRPC clients hide what an
/// operator needs ("connection refused") three causes deep.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let deeper = error.to_string();
        if !text.contains(&deeper) {
            text.push_str(": ");
            text.push_str(&deeper);
        }
        cause = error.source();
    }
    text
}
