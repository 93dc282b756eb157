//! Text from the network, made fit for a log line.

use std::fmt;

/// Characters of foreign text that a log line or error repeats.
const LIMIT: usize = 120;

/// Displays the beginning of a text that came over the network, quoted and with control
/// characters escaped: a peer must not be able to write terminal sequences, line breaks or
/// megabytes into an operator's log.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a>(pub &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(LIMIT) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}… ({} bytes)", &self.0[..end], self.0.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(Excerpt("a\n\u{1b}[31m").to_string(), r#""a\n\u{1b}[31m""#);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let shown = Excerpt(&"ü".repeat(10_000)).to_string();
        assert!(shown.len() < 400, "{shown}");
        assert!(shown.ends_with("(20000 bytes)"), "{shown}");
    }
}
