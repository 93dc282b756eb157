//! Durations as operators write them: `30s`, `500ms`, `2m`, `24h`, or plain seconds.

use std::time::Duration;

use thiserror::Error;

/// Why a text is not taken for a duration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    /// It is none.
    #[error(
        "{0:?} is not a duration; write a whole number and a unit: 500ms, 30s, 2m or 24h (without a unit: seconds)"
    )]
    Notation(String),
    /// It is zero.
    #[error("{0:?} is no time at all; it must be at least 1ms")]
    Zero(String),
}

/// Reads a duration.
///
/// # Errors
///
/// [`DurationError`], also for a duration of zero and for one that overflows.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError::Notation(text.to_owned());
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(error()),
    };
    match number.checked_mul(milliseconds) {
        None => Err(error()),
        Some(0) => Err(DurationError::Zero(text.to_owned())),
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1d",
            "+1",
            "99999999999999999999",
            "18446744073709551615s",
        ] {
            let error = DurationError::Notation(text.to_owned());
            assert_eq!(parse(text), Err(error));
        }
        for text in ["0", "0ms", "00h"] {
            assert_eq!(parse(text), Err(DurationError::Zero(text.to_owned())));
        }
    }
}
