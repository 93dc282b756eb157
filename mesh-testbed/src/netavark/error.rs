//! What can go wrong between netavark and a plugin.

use std::{io, path::PathBuf, time::Duration};

/// Why a call of a plugin did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetavarkError {
    /// The plugin failed and said why.
    #[error("{error}")]
    Failed {
        /// The sentence.
        error: String,
    },

    /// The plugin broke the contract.
    #[error("{}: {reason}", plugin.display())]
    Broken {
        /// Its file.
        plugin: PathBuf,
        /// The rule, and what it wrote.
        reason: String,
    },

    /// The plugin did not end in time, and was killed.
    #[error("the plugin did not end within {waited:?}")]
    Late {
        /// How long it was waited for.
        waited: Duration,
    },

    /// The plugin could not be run.
    #[error("cannot run {}: {reason}", path.display())]
    Run {
        /// Its file.
        path: PathBuf,
        /// The kernel's answer.
        reason: io::Error,
    },
}
