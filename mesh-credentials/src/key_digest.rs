//! What a public key is known by.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD_NOCASE;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a key's SubjectPublicKeyInfo in DER, as in RFC 7469 section 2.4: it stays when a certificate for the
/// same key is made anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// That of a SubjectPublicKeyInfo.
    #[must_use]
    pub fn of(subject_public_key_info: &[u8]) -> Self {
        Self(Sha256::digest(subject_public_key_info).into())
    }

    /// Enough of it to tell keys apart that nobody made to be alike: 16 characters.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(16);
        text
    }
}

/// 52 characters of base32 in lower case, without padding.
impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({self})")
    }
}

/// The text is no digest of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the digest of a key, which is 52 characters of base32")]
pub struct KeyDigestError(pub String);

impl FromStr for KeyDigest {
    type Err = KeyDigestError;

    fn from_str(text: &str) -> Result<Self, KeyDigestError> {
        let wrong = || KeyDigestError(text.chars().take(80).collect());
        let bytes = BASE32_NOPAD_NOCASE
            .decode(text.as_bytes())
            .map_err(|_| wrong())?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_digest_is_read_as_it_was_written(key in any::<Vec<u8>>()) {
            let digest = KeyDigest::of(&key);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(digest.to_string().to_uppercase().parse(), Ok(digest));
            prop_assert_eq!(digest.to_string().len(), 52);
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = text.parse::<KeyDigest>();
        }
    }

    #[test]
    fn what_is_longer_or_shorter_is_none() {
        let text = KeyDigest::of(b"").to_string();
        assert!(text[..51].parse::<KeyDigest>().is_err());
        assert!(format!("{text}a").parse::<KeyDigest>().is_err());
        assert!("".parse::<KeyDigest>().is_err());
    }
}
