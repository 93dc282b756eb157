//! A problem as others are told of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Problem, Severity};

/// A problem as others are told of it, in words, so that also those can show it who do not know its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// Its kind's code, see docs/PROBLEMS.md.
    #[cfg_attr(feature = "openapi", schema(example = "foreign-route"))]
    pub code: String,
    /// How grave it is.
    pub severity: Severity,
    /// What it is, in a few words.
    pub title: String,
    /// What was observed, with values.
    pub observed: String,
    /// What does not work because of it.
    pub breaks: String,
    /// What to do.
    pub remedy: String,
    /// Since when it is there, in Unix seconds.
    pub since: u64,
}

impl Finding {
    /// A problem that is there since then, in Unix seconds.
    #[must_use]
    pub fn of(problem: &Problem, since: u64) -> Self {
        let kind = problem.kind;
        Self {
            code: kind.code.to_owned(),
            severity: kind.severity,
            title: kind.title.to_owned(),
            observed: problem.observed.clone(),
            breaks: kind.breaks.to_owned(),
            remedy: problem.remedy().into_owned(),
            since,
        }
    }
}

/// In one line: what was observed, what it breaks, what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            observed,
            breaks,
            remedy,
            ..
        } = self;
        write!(f, "{observed}: {breaks}; {remedy}")
    }
}
