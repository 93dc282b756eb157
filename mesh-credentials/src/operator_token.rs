//! By what the control plane knows a person, or a person's program.

use std::fmt;
use std::str::FromStr;

use crate::join_token::is_id;
use crate::secret::Secret;

/// What a token of this kind begins with.
const PREFIX: &str = "qmo1";

/// `qmo1.ID.SECRET`, sent as `Authorization: Bearer` (RFC 6750 section 2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorToken {
    /// By what the control plane finds it, and operators call it.
    pub id: String,
    /// What is never stored.
    pub secret: Secret,
}

/// One line, as it is handed on.
impl fmt::Display for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}", self.id, self.secret.text())
    }
}

/// The text, which is not repeated, is no operator's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an operator's token is {PREFIX} and two parts after points (quilt-mesh-control operator create prints one)"
)]
pub struct OperatorTokenError;

impl FromStr for OperatorToken {
    type Err = OperatorTokenError;

    fn from_str(text: &str) -> Result<Self, OperatorTokenError> {
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(OperatorTokenError);
        };
        if !is_id(id) {
            return Err(OperatorTokenError);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: Secret::read(secret).ok_or(OperatorTokenError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_not_when_it_was_cut() {
        let token = OperatorToken {
            id: "4f1c".to_owned(),
            secret: Secret::make().unwrap(),
        };
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token));
        for length in 0..text.len() {
            assert!(text[..length].parse::<OperatorToken>().is_err());
        }
    }
}
