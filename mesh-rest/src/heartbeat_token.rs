//! By which a host shows that it is the one that goes on as a node, and not a copy of it.
//!
//! Every answer to a registration or a heartbeat hands out a token in a header, and the next one
//! brings it along in the same header. A host that was cloned with its state comes with a token
//! that the original has long exchanged for newer ones. Agents of earlier versions bring none.

use std::{fmt, str::FromStr};

/// The header, in requests and answers.
pub const HEADER: &str = "quilt-mesh-token";

/// A token: later ones have higher numbers, and of two with one number the nonces differ.
///
/// On the wire it is the number, a point, and 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeartbeatToken {
    /// Counts the tokens of one node; at most 2^63 - 1.
    pub number: u64,
    /// Random.
    pub nonce: u64,
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoToken;

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token is a whole number below 2^63, a point and 16 hexadecimal digits")
    }
}

impl std::error::Error for NoToken {}

impl fmt::Display for HeartbeatToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.number, self.nonce)
    }
}

impl FromStr for HeartbeatToken {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let (number, nonce) = text.split_once('.').ok_or(NoToken)?;
        let plain = |text: &str, digit: fn(u8) -> bool| text.bytes().all(digit);
        if !plain(number, |byte| byte.is_ascii_digit())
            || nonce.len() != 16
            || !plain(nonce, |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(NoToken);
        }
        let number = number.parse().map_err(|_| NoToken)?;
        if i64::try_from(number).is_err() {
            return Err(NoToken);
        }
        let nonce = u64::from_str_radix(nonce, 16).map_err(|_| NoToken)?;
        Ok(Self { number, nonce })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "1",
            ".0123456789abcdef",
            "1.0123456789ABCDEF",
            "1.123456789abcdef",
            "+1.0123456789abcdef",
            "-1.0123456789abcdef",
            "9223372036854775808.0123456789abcdef",
            "1.0123456789abcdef ",
            "1.0123456789abcdef.0",
        ] {
            assert_eq!(text.parse::<HeartbeatToken>(), Err(NoToken), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(number in 0..=i64::MAX.unsigned_abs(), nonce: u64) {
            let token = HeartbeatToken { number, nonce };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }
    }
}
