//! Why a call to the control plane failed.

use mesh_rest::client::CallError;

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

    fn call(&self) -> Option<&CallError> {
        match self {
            Self::Call(error) => Some(error),
            Self::Subnet { .. } => None,
        }
    }
}
