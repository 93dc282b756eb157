//! What an authority does while one takes the place of another.

use std::str::FromStr;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityState {
    /// It is trusted, and signs next.
    Next,
    /// It signs.
    Signs,
    /// It is still trusted, and signed before.
    Last,
}

impl AuthorityState {
    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Signs => "signs",
            Self::Last => "last",
        }
    }
}

/// It is no state of an authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of an authority")]
pub struct NoState(String);

impl FromStr for AuthorityState {
    type Err = NoState;

    fn from_str(text: &str) -> Result<Self, NoState> {
        [Self::Next, Self::Signs, Self::Last]
            .into_iter()
            .find(|it| it.as_str() == text)
            .ok_or_else(|| NoState(text.to_owned()))
    }
}
