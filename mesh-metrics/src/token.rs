//! The token that whoever scrapes from elsewhere has to show.

use std::path::{Path, PathBuf};

use mesh_credentials::secret_file;
use subtle::ConstantTimeEq as _;

/// The fewest characters that a token may have: somebody may try some thousand a second.
const SHORTEST: usize = 16;

/// A file with a token, read whenever somebody shows one, so that it may be replaced at any time.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile(PathBuf);

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("--metrics-token-file {}: there is no such file", .0.display())]
    Missing(PathBuf),
    #[error("--metrics-token-file: {0}")]
    File(#[from] secret_file::SecretFileError),
    #[error(
        "--metrics-token-file {}: a token has at least {SHORTEST} characters and neither spaces nor line breaks within; \
         make one with openssl rand -hex 32", .0.display()
    )]
    Weak(PathBuf),
}

impl TokenFile {
    /// Takes the file, if there is a token in it.
    pub(crate) fn open(path: &Path) -> Result<Self, TokenError> {
        let file = Self(path.to_owned());
        file.read()?;
        Ok(file)
    }

    fn read(&self) -> Result<String, TokenError> {
        let text = secret_file::read(&self.0)?;
        let text = text.ok_or_else(|| TokenError::Missing(self.0.clone()))?;
        let token = text.trim();
        let is_whole = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.len() < SHORTEST || !is_whole {
            return Err(TokenError::Weak(self.0.clone()));
        }
        Ok(token.to_owned())
    }

    /// Whether the value of an `Authorization` header (RFC 6750 section 2.1) shows the token. May block.
    pub(crate) fn is_shown(&self, authorization: Option<&[u8]>) -> Result<bool, TokenError> {
        let token = self.read()?;
        Ok(authorization
            .and_then(bearer)
            .is_some_and(|shown| bool::from(shown.ct_eq(token.as_bytes()))))
    }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_is_compared_as_a_whole_and_read_again_when_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        write(&path, "0123456789abcdef\n", 0o600);
        let file = TokenFile::open(&path).unwrap();
        let shown = |header: &str| file.is_shown(Some(header.as_bytes())).unwrap();
        assert!(shown("Bearer 0123456789abcdef"));
        assert!(shown("bearer 0123456789abcdef"));
        for other in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer  0123456789abcdef",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!shown(other), "{other}");
        }
        assert!(!file.is_shown(None).unwrap());
        write(&path, "another-one-of-some-length", 0o600);
        assert!(!shown("Bearer 0123456789abcdef"));
        assert!(shown("Bearer another-one-of-some-length"));
        fs::remove_file(&path).unwrap();
        assert!(
            file.is_shown(Some(b"Bearer another-one-of-some-length"))
                .is_err()
        );
    }

    #[test]
    fn a_file_without_a_token_or_open_to_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let error = |text: &str, mode| {
            write(&path, text, mode);
            TokenFile::open(&path).unwrap_err().to_string()
        };
        assert!(error("", 0o600).contains("at least 16"));
        assert!(error("0123456789abcde", 0o600).contains("at least 16"));
        assert!(error("0123456789 abcdef", 0o600).contains("at least 16"));
        assert!(error("0123456789abcdef", 0o644).contains("chmod 600"));
        fs::remove_file(&path).unwrap();
        let missing = TokenFile::open(&path).unwrap_err().to_string();
        assert!(missing.contains("--metrics-token-file"), "{missing}");
    }
}
