//! A problem that was seen.

use std::{borrow::Cow, fmt};

use crate::Kind;

/// A problem that was seen: which, and what was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which it is.
    pub kind: &'static Kind,
    /// What was observed, with its values: `vxlan100 exists and is a bridge`.
    pub observed: String,
    /// What to do, with these values; `None`: as its kind says.
    pub remedy: Option<String>,
}

impl Problem {
    /// One with what was observed, for which is to be done what its kind says.
    #[must_use]
    pub fn new(kind: &'static Kind, observed: impl Into<String>) -> Self {
        Self {
            kind,
            observed: observed.into(),
            remedy: None,
        }
    }

    /// The same, for which is to be done this.
    #[must_use]
    pub fn remedied_by(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> Cow<'_, str> {
        match &self.remedy {
            Some(remedy) => remedy.into(),
            None => self.kind.remedy.into(),
        }
    }
}

/// In one line: what was observed, what it breaks, what to do.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, observed, .. } = self;
        write!(f, "{observed}: {}; {}", kind.breaks, self.remedy())
    }
}
