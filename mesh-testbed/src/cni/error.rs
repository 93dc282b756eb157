//! What can go wrong between an engine and its plugins.

use std::{fmt, path::PathBuf, time::Duration};

/// What a plugin said when it failed: the object of the specification that it wrote to its standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniFailure {
    /// The plugin's type.
    pub plugin: String,
    /// CNI_COMMAND.
    pub command: String,
    /// The code: below 100 the specification's, from 100 on the plugin's own.
    pub code: u64,
    /// The short message.
    pub msg: String,
    /// What follows the message; may be empty.
    pub details: String,
    /// The version that the object names; may be empty.
    pub cni_version: String,
}

impl fmt::Display for CniFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            plugin,
            command,
            code,
            msg,
            details,
            ..
        } = self;
        write!(f, "{command} of {plugin} failed with code {code}: {msg}")?;
        match details.is_empty() {
            true => Ok(()),
            false => write!(f, "; {details}"),
        }
    }
}

/// Why an engine's command did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// A plugin failed and said why.
    #[error("{0}")]
    Failed(Box<CniFailure>),

    /// There is no such plugin.
    #[error("no plugin {plugin:?} in {searched:?}")]
    NotFound {
        /// Its type.
        plugin: String,
        /// The directories.
        searched: Vec<PathBuf>,
    },

    /// A plugin broke the protocol.
    #[error("{plugin}: {reason}\n  stdout: {stdout}\n  stderr: {stderr}")]
    Broken {
        /// Its type.
        plugin: String,
        /// The rule.
        reason: String,
        /// What it wrote.
        stdout: String,
        /// What it logged.
        stderr: String,
    },

    /// A plugin did not end in time, and was killed.
    #[error("{plugin} did not end within {waited:?}")]
    Late {
        /// Its type.
        plugin: String,
        /// How long it was waited for.
        waited: Duration,
    },

    /// No plugin could be run.
    #[error("cannot run {}: {reason}", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// The kernel's answer.
        reason: std::io::Error,
    },

    /// The list, or what is asked for, is not as the specification has it.
    #[error("{0}")]
    List(String),

    /// The list's version does not know the command.
    #[error("version {version} does not know {command}")]
    Unsupported {
        /// CNI_COMMAND.
        command: &'static str,
        /// The list's version.
        version: String,
    },

    /// What is remembered cannot be read or written.
    #[error("{}: {reason}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl CniError {
    /// What the plugin said, if it was one that failed.
    pub fn failure(&self) -> Option<&CniFailure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}
