//! What the guest tells between two outcomes, so that the host knows that it lives and where
//! it was should it fall silent.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::check::Check;

/// How often the guest gives a sign of life.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A sign of life between two outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doing {
    /// The check that is being made.
    pub check: Check,
    /// What it is waiting for, or does.
    pub step: String,
    /// For how long already.
    pub seconds: u64,
}

impl Doing {
    /// The line, without its end.
    ///
    /// # Errors
    ///
    /// None that can happen: there is nothing in it that JSON cannot hold.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Reads a line; `None` if it is none of these.
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}, for {} s",
            self.check.name(),
            self.step,
            self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn a_sign_of_life_is_no_outcome_and_an_outcome_no_sign_of_life() {
        let check = Check::ABondCarriesTheFastPathOverWhicheverCardIsLeft;
        let doing = Doing {
            check,
            step: "packets over the second card".to_owned(),
            seconds: 5,
        };
        let line = doing.to_line().unwrap();
        assert_eq!(Outcome::from_line(&line), None);
        let failure = None;
        let outcome = Outcome { check, failure }.to_line().unwrap();
        assert_eq!(Doing::from_line(&outcome), None);
        assert_eq!(Doing::from_line(&format!("{line}\r\n")), Some(doing));
    }
}
