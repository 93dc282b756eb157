//! Whether a node is there.

use serde::{Deserialize, Serialize};

/// Whether a node's heartbeats arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its last heartbeat is younger than the node timeout.
    Up,
    /// It was silent for the node timeout, its agent was stopped, it left, or it lost its address to
    /// another node.
    Down,
}

impl Status {
    /// The word that stands in the API and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// The status that a word stands for. `None`: one that this version does not know.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Up, Self::Down]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_status_is_how_it_is_written_and_read() {
        for status in [Status::Up, Status::Down] {
            let word = status.as_str();
            assert_eq!(Status::of_word(word), Some(status));
            assert_eq!(
                serde_json::to_string(&status).unwrap(),
                format!("\"{word}\"")
            );
        }
        assert_eq!(Status::of_word("draining"), None);
    }
}
