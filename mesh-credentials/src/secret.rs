//! What only its owner knows.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD_NOCASE;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// 256 random bits, which nobody can guess: their digest need not be slow to compute.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// The system has no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomNumbers;

impl Secret {
    /// A new one.
    ///
    /// # Errors
    ///
    /// [`NoRandomNumbers`].
    pub fn make() -> Result<Self, NoRandomNumbers> {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| NoRandomNumbers)?;
        Ok(Self(bytes))
    }

    /// What is kept in its place.
    #[must_use]
    pub fn digest(&self) -> SecretDigest {
        SecretDigest(Sha256::digest(self.0).into())
    }

    /// As it stands in a token: 52 characters.
    pub(crate) fn text(&self) -> String {
        BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase()
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let bytes = BASE32_NOPAD_NOCASE.decode(text.as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

/// Without the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The SHA-256 of a secret, by which it is recognised and from which it cannot be told.
#[derive(Debug, Clone, Copy)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// Whether it is that of this secret. How long it takes does not tell how much of it fits.
    #[must_use]
    pub fn is_of(&self, secret: &Secret) -> bool {
        self.0.ct_eq(&secret.digest().0).into()
    }
}

/// 52 characters of base32.
impl fmt::Display for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase())
    }
}

/// The text is no digest of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the digest of a secret")]
pub struct SecretDigestError;

impl FromStr for SecretDigest {
    type Err = SecretDigestError;

    fn from_str(text: &str) -> Result<Self, SecretDigestError> {
        let bytes = BASE32_NOPAD_NOCASE
            .decode(text.as_bytes())
            .map_err(|_| SecretDigestError)?;
        Ok(Self(bytes.try_into().map_err(|_| SecretDigestError)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_knows_its_secret_alone() {
        let (a, b) = (Secret::make().unwrap(), Secret::make().unwrap());
        let stored: SecretDigest = a.digest().to_string().parse().unwrap();
        assert!(stored.is_of(&a) && !stored.is_of(&b));
        assert_ne!(a.digest().to_string(), a.text());
    }

    #[test]
    fn no_secret_is_shown_where_things_are_printed_for_debugging() {
        let secret = Secret::make().unwrap();
        assert!(!format!("{secret:?}").contains(&secret.text()));
    }
}
