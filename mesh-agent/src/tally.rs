//! What happens to many at once, as few log lines.

use std::time::{Duration, Instant};

/// So many of those that a line counts are named in it.
const EXAMPLES: usize = 3;

/// So many lines come at once; what follows is counted until the period is over.
const LINES: u32 = 4;

/// The time that these lines are for.
const PERIOD: Duration = Duration::from_secs(60);

/// Events of one kind, counted until there is a line for them.
#[derive(Debug, Default)]
pub struct Tally {
    count: usize,
    examples: Vec<String>,
    /// Since when lines are counted, and how many there were.
    period: Option<Instant>,
    lines: u32,
}

/// What a log line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How many there were since the line before.
    pub count: usize,
    /// The first of them.
    pub examples: String,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }

    /// What is to be logged by now: `None` if there is nothing new, or too much was logged already. What is held back
    /// is in the first line after that.
    pub fn line(&mut self, now: Instant) -> Option<Line> {
        if self.count == 0 {
            return None;
        }
        let is_over = |began: Instant| now.saturating_duration_since(began) >= PERIOD;
        if self.period.is_none_or(is_over) {
            self.period = Some(now);
            self.lines = 0;
        }
        if self.lines >= LINES {
            return None;
        }
        self.lines += 1;
        Some(Line {
            count: std::mem::take(&mut self.count),
            examples: std::mem::take(&mut self.examples).join("; "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_one_line_with_a_count_and_the_first_as_examples() {
        let mut tally = Tally::default();
        let now = Instant::now();
        assert_eq!(tally.line(now), None);
        for n in 1..=60_000 {
            tally.add(|| n.to_string());
        }
        let expected = Line {
            count: 60_000,
            examples: "1; 2; 3".to_owned(),
        };
        assert_eq!(tally.line(now), Some(expected));
        assert_eq!(tally.line(now), None);
    }

    #[test]
    fn what_goes_on_and_on_is_a_few_lines_a_period_and_nothing_is_left_out_of_the_count() {
        let mut tally = Tally::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut lines = Vec::new();
        for n in 0..600 {
            tally.add(|| n.to_string());
            lines.extend(tally.line(start + second * n));
        }
        assert_eq!(lines.len(), 40);
        lines.extend(tally.line(start + second * 600));
        let counted: usize = lines.iter().map(|line| line.count).sum();
        assert_eq!(counted, 600);
        assert_eq!(
            lines[4].count, 57,
            "what was held back and the first of the new period"
        );
        assert_eq!(lines[4].examples, "4; 5; 6");
    }
}
