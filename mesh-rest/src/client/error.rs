//! Why a call to the control plane failed.

use std::{error::Error, time::Duration};

use reqwest::StatusCode;

use crate::problem::ProblemDocument;

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

    /// Whether nobody answered.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
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
