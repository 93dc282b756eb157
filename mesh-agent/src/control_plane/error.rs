//! Why a call to the control plane failed.

use std::time::Duration;

use mesh_rest::{client::CallError, problem_kind::Kind};

use crate::{excerpt::Excerpt, node::SubnetError};

/// Why a call to the control plane failed, or its answer is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// There is no answer, or it is a refusal.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The registration names a subnet that is none.
    #[error("{call}: leased subnet {}: {error}", Excerpt(.text))]
    Subnet {
        /// Method and URL.
        call: String,
        /// The subnet as answered.
        text: String,
        /// The rule it breaks.
        error: SubnetError,
    },
    /// The registration is that of another node than the certificate's.
    #[error("{call}: registered as the node {}, and this host's certificate is of {ours}", Excerpt(.answered))]
    OtherNode {
        /// Method and URL.
        call: String,
        /// The node of the certificate.
        ours: String,
        /// The node as answered.
        answered: String,
    },
    /// It was not asked: this host's certificate is refused.
    #[error("the control plane does not take this node's certificate")]
    NotAdmitted,
}

impl ControlPlaneError {
    /// Whether another replica of the control plane may answer better: this one fails, or is
    /// none.
    #[must_use]
    pub fn is_of_this_replica(&self) -> bool {
        self.call().is_some_and(CallError::is_of_this_replica)
    }

    /// Whether nobody answered.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        self.call().is_some_and(CallError::is_silence)
    }

    /// Whether the control plane took offence at what the request said.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.call().is_some_and(CallError::is_refusal)
    }

    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.call().is_some_and(CallError::is_transient)
    }

    /// The kind of problem that was answered, if it is one that this version knows.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.call()?.kind()
    }

    /// In how much time the control plane wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.call()?.retry_after()
    }

    /// Whether the credentials of this host are refused, or missing.
    #[must_use]
    pub fn is_of_credentials(&self) -> bool {
        self.call().is_some_and(CallError::is_of_credentials)
    }

    /// Whether who is there has a certificate that was signed by nobody who is trusted here.
    #[must_use]
    pub fn is_of_a_stranger(&self) -> bool {
        self.call().is_some_and(CallError::is_of_a_stranger)
    }

    fn call(&self) -> Option<&CallError> {
        match self {
            Self::Call(error) => Some(error),
            Self::Subnet { .. } | Self::OtherNode { .. } | Self::NotAdmitted => None,
        }
    }
}
