//! What cannot be done, with the specification's codes.

use mesh_client::ClientError;
use mesh_plugin::{AttachError, DetachError, NamespaceError};
use serde_json::{Value, json};

use crate::version::Version;

/// The codes of the specification that are used here, and two of this plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// A version of the specification that is not spoken here.
    Version = 1,
    /// A field of the configuration that is not supported.
    UnsupportedField = 2,
    /// The runtime knows nothing of the container: no DEL is needed.
    UnknownContainer = 3,
    /// Variables of the environment are missing, or cannot be what they are.
    Environment = 4,
    /// Files and sockets.
    Io = 5,
    /// What cannot be read.
    Decode = 6,
    /// A configuration that cannot be used.
    Config = 7,
    /// The network namespace cannot be one of a container.
    Namespace = 8,
    /// Another try may succeed.
    TryAgain = 11,
    /// No container can be added at the moment.
    NotAvailable = 50,
    /// And those that there are may not reach all that they should.
    Limited = 51,
    /// The runtime refuses.
    Refused = 100,
    /// The interface exists already.
    Exists = 101,
    /// What CHECK finds is not what ADD made.
    Differs = 102,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// As it is printed.
    pub(crate) fn json(&self, version: Version) -> Value {
        json!({
            "cniVersion": version.text(),
            "code": self.code as u32,
            "msg": self.message,
        })
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Connect { reason, .. }
                if reason.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Code::Io
            }
            ClientError::Connect { .. } | ClientError::Silent(_) | ClientError::NotYet(_) => {
                Code::TryAgain
            }
            ClientError::Failed(status) => match status.code() {
                mesh_client::StatusCode::PermissionDenied => Code::Io,
                mesh_client::StatusCode::Unimplemented => Code::Refused,
                _ => Code::TryAgain,
            },
            ClientError::Refused(_) | ClientError::Incomplete(_) => Code::Refused,
            ClientError::Inside(_) => Code::Io,
        };
        Self::new(code, error.to_string())
    }
}

impl From<NamespaceError> for Failure {
    fn from(error: NamespaceError) -> Self {
        let code = match &error {
            NamespaceError::Unfit(_) => Code::Namespace,
            NamespaceError::Closed(_) => Code::Io,
        };
        Self::new(code, error.to_string())
    }
}

impl From<DetachError> for Failure {
    fn from(error: DetachError) -> Self {
        match error {
            DetachError::Client(error) => error.into(),
            other => Self::new(Code::Io, other.to_string()),
        }
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Client(error) => error.into(),
            AttachError::Host(error) => error.into(),
            AttachError::Exists { .. } => Self::new(Code::Exists, error.to_string()),
            AttachError::OtherNetwork { .. } => Self::new(Code::Config, error.to_string()),
        }
    }
}
