//! A part of the host that was looked at.

use mesh_problems::Problem;

/// A part of the host that was looked at, or could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// Its name: a word or two, which does not change.
    pub name: &'static str,
    /// What was seen, in a line; or why it was not looked at.
    pub outcome: Result<String, String>,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

impl Area {
    /// One that was looked at.
    #[must_use]
    pub fn looked(name: &'static str, seen: impl Into<String>, problems: Vec<Problem>) -> Self {
        Self {
            name,
            outcome: Ok(seen.into()),
            problems,
        }
    }

    /// One that could not be looked at.
    #[must_use]
    pub fn not_looked(name: &'static str, why: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Err(why.into()),
            problems: Vec::new(),
        }
    }

    /// One for which a privilege, or something else, is missing.
    pub(crate) fn refused(name: &'static str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::not_looked(name, "needs root"),
            _ => Self::not_looked(name, error.to_string()),
        }
    }
}

/// So many of something: `1 rule`, `3 rules`.
pub(crate) fn counted(count: usize, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    }
}

/// What is said of how many of some things are in the way.
pub(crate) fn in_the_way(problems: &[Problem]) -> String {
    match problems.len() {
        0 => "none in the way".to_owned(),
        count => format!("{count} in the way"),
    }
}
