//! The figures for the documentation.

use std::fmt::Write as _;

use super::{HEADER, Report, row};

impl Report {
    /// Circumstances, goals and figures, as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("Measured on {}.\n\n", self.circumstances());
        // Writing to a string cannot fail.
        let _ = self.write_tables(&mut text);
        text
    }

    fn write_tables(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "| goal | limit | measured | |\n|---|---|---|---|")?;
        for goal in self.goals() {
            let met = if goal.met { "met" } else { "**not met**" };
            writeln!(
                text,
                "| {} | {} | **{}** | {met} |",
                goal.what, goal.limit, goal.measured
            )?;
        }
        writeln!(
            text,
            "\n| {} |\n|{}",
            HEADER.join(" | "),
            "---|".repeat(HEADER.len())
        )?;
        for (measured, cluster) in self.clusters() {
            writeln!(text, "| {} |", row(measured, cluster).join(" | "))?;
        }
        Ok(())
    }
}
