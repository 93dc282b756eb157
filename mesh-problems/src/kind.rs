//! The definition of a problem.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How grave a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Everything works, but not as well as it could, or as somebody may expect.
    Notice,
    /// What it names works in part, more slowly, or only until something else happens.
    Warning,
    /// What it names does not work.
    Error,
}

impl Severity {
    /// Its word in documents for machines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// That of a word; a word that this version does not know is taken for the gravest.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        [Self::Notice, Self::Warning]
            .into_iter()
            .find(|severity| severity.as_str() == word)
            .unwrap_or(Self::Error)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The definition of a problem. All there are stand in [`crate::catalog`].
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Lower-case words joined by `-`; never given to something else.
    pub code: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What it is, in a few words without values.
    pub title: &'static str,
    /// What does not work because of it.
    pub breaks: &'static str,
    /// What to do, as far as that can be said without the values of one that was seen. Words in capitals stand for values.
    pub remedy: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_severity_survives_its_word_and_an_unknown_word_is_grave() {
        for severity in [Severity::Notice, Severity::Warning, Severity::Error] {
            assert_eq!(Severity::of_word(severity.as_str()), severity);
            let json = serde_json::to_string(&severity).unwrap();
            assert_eq!(json, format!("\"{severity}\""));
        }
        assert_eq!(Severity::of_word("catastrophe"), Severity::Error);
        assert!(Severity::Error > Severity::Warning && Severity::Warning > Severity::Notice);
    }
}
