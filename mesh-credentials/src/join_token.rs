//! What lets a host join.

use std::fmt;
use std::str::FromStr;

use crate::key_digest::KeyDigest;
use crate::secret::Secret;

/// What a token of this kind begins with.
const PREFIX: &str = "qm1";

/// The longest id of a token.
const LONGEST_ID: usize = 32;

/// `qm1.AUTHORITY.ID.SECRET`: by which key the host knows the right control plane, which token it is, and what shows
/// that it was given to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The key of the authority whose control plane gets to see the rest.
    pub authority: KeyDigest,
    /// By what the control plane finds it, and operators call it.
    pub id: String,
    /// What is never stored.
    pub secret: Secret,
}

/// One line, as it is handed on.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (authority, id, secret) = (self.authority, &self.id, self.secret.text());
        write!(f, "{PREFIX}.{authority}.{id}.{secret}")
    }
}

/// Why a text is no join token. It does not repeat the text, most of which may be the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// It does not begin as one.
    #[error("a join token begins with {PREFIX}. (quilt-mesh-control token create prints one)")]
    Prefix,
    /// It is cut off, or something was added.
    #[error(
        "a join token is {PREFIX} and three parts after points; this one was cut, or has something added"
    )]
    Parts,
    /// The digest of the authority's key is none.
    #[error("the second part of the join token is not the digest of a key; was a character lost?")]
    Authority,
    /// The id is none.
    #[error("the third part of the join token is not the id of a token; was a character lost?")]
    Id,
    /// The secret is none.
    #[error("the last part of the join token is not 52 characters of base32; was it cut?")]
    Secret,
}

/// Whether the text may be the id of a token, of either kind.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let mut parts = text.trim().split('.');
        if parts.next() != Some(PREFIX) {
            return Err(JoinTokenError::Prefix);
        }
        let (Some(authority), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JoinTokenError::Parts);
        };
        let authority = authority.parse().map_err(|_| JoinTokenError::Authority)?;
        if !is_id(id) {
            return Err(JoinTokenError::Id);
        }
        let secret = Secret::read(secret).ok_or(JoinTokenError::Secret)?;
        Ok(Self {
            authority,
            id: id.to_owned(),
            secret,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            authority: KeyDigest::of(b"key"),
            id: "4f1c".to_owned(),
            secret: Secret::make().unwrap(),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = token();
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!(" {token}\n").parse(), Ok(token));
    }

    #[test]
    fn a_token_that_was_cut_anywhere_is_none() {
        let text = token().to_string();
        for length in 0..text.len() {
            let error = text[..length].parse::<JoinToken>().unwrap_err();
            assert!(!error.to_string().contains(&text[text.len() - 20..]));
        }
        assert_eq!(
            format!("{text}.x").parse::<JoinToken>(),
            Err(JoinTokenError::Parts)
        );
        assert_eq!(
            format!("{text}x").parse::<JoinToken>(),
            Err(JoinTokenError::Secret)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(qm1)?[.a-z0-9]{0,200}") {
            let _ = text.parse::<JoinToken>();
        }
    }
}
