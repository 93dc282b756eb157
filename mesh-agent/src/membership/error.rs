//! Why the host has not joined, or its certificate is not renewed.

use mesh_credentials::node_key_pair::NodeKeyPairError;
use mesh_rest::problem_kind::Kind;

use super::TokenError;
use crate::{control_plane::ControlPlaneError, credentials::CredentialsError};

/// Why the host has not joined, or its certificate is not renewed.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The join token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The control plane.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// What it answered.
    #[error("what the control plane answered is of no use: {0}")]
    Answer(#[from] CredentialsError),
    /// The key.
    #[error(transparent)]
    Key(#[from] NodeKeyPairError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Neither can HTTP.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl MembershipError {
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Self::ControlPlane(error) => error.kind(),
            _ => None,
        }
    }

    /// Whether no control plane was there.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::ControlPlane(error) if error.is_silence() && !error.is_of_credentials())
    }

    /// Whether the certificate is not taken, now or later. Which time it is may be seen differently later.
    pub(super) fn is_refused_certificate(&self) -> bool {
        let Self::ControlPlane(error) = self else {
            return false;
        };
        match error.kind() {
            Some(Kind::Clock) => false,
            Some(Kind::Forbidden | Kind::UnknownNode) => true,
            _ => error.is_of_credentials(),
        }
    }
}
