//! Why the host has not joined, or its certificate is not renewed.

use std::{path::PathBuf, time::Duration};

use mesh_credentials::node_key_pair::NodeKeyPairError;
use mesh_rest::problem_kind::Kind;

use super::TokenError;
use crate::{
    control_plane::ControlPlaneError,
    credentials::{
        CredentialsError,
        files::{AUTHORITIES_FILE, CERTIFICATE_FILE, KEY_FILE},
    },
    retry,
};

/// Why the host has not joined, or its certificate is not renewed.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The join token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The control plane.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// The token is of another mesh, which this host is not moved to behind an operator's back.
    #[error(
        "the join token is for another authority ({authority}), of the mesh {theirs}, than those of the mesh {ours}, of which \
         this host is the node {node_id}. To move it to another mesh, or to let it join anew, remove {KEY_FILE}, \
         {CERTIFICATE_FILE} and {AUTHORITIES_FILE} from {}; to stay in this mesh, take the token away, and let \
         --control-plane name its control plane", .directory.display()
    )]
    OtherMesh {
        /// The beginning of the authority's key.
        authority: String,
        /// The id of the token's mesh.
        theirs: String,
        /// That of this host's.
        ours: String,
        /// The node that this host is.
        node_id: String,
        /// Where its credentials are kept.
        directory: PathBuf,
    },
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

    /// How long to wait before the control plane is asked again: `pause`, or as long as it said, within reason.
    pub(super) fn pause(&self, pause: Duration) -> Duration {
        let told = match self {
            Self::ControlPlane(error) => error.retry_after(),
            _ => None,
        };
        // A fleet that was told the same does not come back in step.
        let told = told.map(|told| {
            told.min(retry::LONGEST_RENEWAL_PAUSE)
                .mul_f64(rand::random_range(1.0..1.2))
        });
        pause.max(told.unwrap_or_default())
    }

    /// Whether no control plane was there.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::ControlPlane(error) if error.is_silence() && !error.is_of_credentials())
    }

    /// Whether who is there has a certificate that was signed by nobody who is trusted here.
    pub(super) fn is_of_a_stranger(&self) -> bool {
        matches!(self, Self::ControlPlane(error) if error.is_of_a_stranger())
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

#[cfg(test)]
mod tests {
    use mesh_rest::{
        client::CallError,
        problem::{ProblemDocument, RETRY_AFTER_MEMBER},
    };

    use super::*;

    #[test]
    fn who_is_told_to_wait_waits_at_least_as_long_and_not_for_ever() {
        let told = |seconds: u64| {
            let mut problem = ProblemDocument::new(Kind::SlowDown, "d");
            let members = &mut problem.members;
            members.insert(RETRY_AFTER_MEMBER.to_owned(), seconds.into());
            let error = CallError::Status {
                call: String::new(),
                status: reqwest::StatusCode::TOO_MANY_REQUESTS,
                detail: String::new(),
                problem: Some(Box::new(problem)),
            };
            MembershipError::from(ControlPlaneError::from(error))
        };
        let seconds = Duration::from_secs;
        assert!((seconds(60)..=seconds(72)).contains(&told(60).pause(seconds(1))));
        assert_eq!(told(60).pause(seconds(600)), seconds(600));
        assert!(told(u64::MAX).pause(seconds(1)) <= retry::LONGEST_RENEWAL_PAUSE.mul_f64(1.2));
        let silent = MembershipError::from(ControlPlaneError::NotAdmitted);
        assert_eq!(silent.pause(seconds(1)), seconds(1));
    }
}
