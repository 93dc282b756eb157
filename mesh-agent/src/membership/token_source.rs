//! Where the join token comes from.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
};

use mesh_credentials::join_token::{JoinToken, JoinTokenError};

/// No file with a token is longer, in bytes.
const LONGEST: u64 = 4096;

/// Where the join token comes from.
#[derive(Clone)]
pub enum TokenSource {
    /// The command line or the environment.
    Given(JoinToken),
    /// A file, which may get another one while the agent runs.
    File(PathBuf),
}

/// Without what nobody else may know.
impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(token) => write!(f, "the token {}", token.id),
            Self::File(path) => write!(f, "the token in {}", path.display()),
        }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// None was given.
    #[error("there is no join token; give one with --join TOKEN or --join-file FILE")]
    None,
    /// What was given is none.
    #[error("--join: {0}")]
    Given(JoinTokenError),
    /// What the file holds is none.
    #[error("{}: {error}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: JoinTokenError,
    },
    /// The file cannot be read.
    #[error("cannot read the join token in {}: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl TokenSource {
    /// The token.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(&self) -> Result<JoinToken, TokenError> {
        let path = match self {
            Self::Given(token) => return Ok(token.clone()),
            Self::File(path) => path,
        };
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut text))
            .map_err(|cause| TokenError::File {
                path: path.clone(),
                cause,
            })?;
        let text = String::from_utf8_lossy(&text);
        text.parse().map_err(|error| TokenError::InFile {
            path: path.clone(),
            error,
        })
    }
}
