//! The figures for the documentation.

use std::{fmt::Write as _, fs, io, path::Path};

use anyhow::Context as _;

use super::{Report, goals, lines, number};
use crate::dataplane::{programs, topology::Topology};

/// What the figures stand between in a page whose other text is written by hand.
const BEGIN: &str = "<!-- figures of `cargo xtask bench dataplane`: begin -->";
const END: &str = "<!-- figures: end -->";

impl Report {
    /// Writes the figures into a page: between the marks if it has them, else as the page.
    pub(crate) fn write_markdown(&self, path: &Path) -> anyhow::Result<()> {
        let page = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        fs::write(path, insert(&page, &self.markdown()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "Measured on {}, {} rounds of {} ms after {} ms of warming up, bridge netfilter {}{}.\n\n",
            self.machine,
            self.setting.schedule.rounds,
            self.setting.schedule.measured_ms,
            self.setting.schedule.warm_up_ms,
            match self.setting.bridge_netfilter {
                crate::dataplane::topology::bed::BridgeNetfilter::On => "on",
                crate::dataplane::topology::bed::BridgeNetfilter::Off => "off",
            },
            if self.setting.quick {
                " (a quick run)"
            } else {
                ""
            },
        );
        // Writing to a string cannot fail.
        let _ = self.write_tables(&mut text);
        text
    }

    fn write_tables(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "| goal | limit | measured | quartiles | |")?;
        writeln!(text, "|---|---|---|---|---|")?;
        for goal in goals::goals(self) {
            let quartiles = goal.spread.map_or(String::new(), |spread| {
                format!("{:.2} – {:.2}", spread.lower, spread.upper)
            });
            writeln!(
                text,
                "| {} | {} | **{:.2}** | {quartiles} | {} |",
                goal.what,
                goal.limit,
                goal.measured,
                if goal.met { "met" } else { "**not met**" }
            )?;
        }
        writeln!(
            text,
            "\nMedians; in brackets the ratio to {} with its quartiles over the rounds.\n",
            Topology::REFERENCE.name()
        )?;
        write!(text, "| |")?;
        for topology in Topology::ALL {
            write!(text, " {} |", topology.name())?;
        }
        writeln!(text, "\n|---|{}", "---|".repeat(Topology::ALL.len()))?;
        for series in &self.series {
            write!(
                text,
                "| {}, {} |",
                series.measure.title(),
                series.measure.unit()
            )?;
            for line in lines(series) {
                write!(
                    text,
                    " {} ({:.2}; {:.2} – {:.2}) |",
                    number(line.value.median),
                    line.ratio.median,
                    line.ratio.lower,
                    line.ratio.upper
                )?;
            }
            writeln!(text)?;
        }
        let [few, many] = programs::PEERS_TITLES;
        writeln!(text, "\nEach program by itself, ns per packet:\n")?;
        writeln!(
            text,
            "| program | packets of | {few} | {many} | ratio |\n|---|---|---|---|---|",
        )?;
        for cost in &self.programs {
            write!(text, "| `{}` | {} |", cost.program, cost.packets_of())?;
            for ns in &cost.ns {
                write!(text, " {:.0} |", ns.median)?;
            }
            let growth = cost.growth().map_or(String::new(), |it| format!("{it:.2}"));
            writeln!(text, " {growth} |")?;
        }
        Ok(())
    }
}

/// The page with the figures between its marks; without marks, the figures.
fn insert(page: &str, figures: &str) -> String {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    match parts {
        Some((before, after)) => format!("{before}{BEGIN}\n\n{figures}\n{END}{after}"),
        None => format!("{BEGIN}\n\n{figures}\n{END}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_figures_replace_the_old_ones_and_nothing_else() {
        let first = insert("", "old\n");
        let page = format!("# Title\n{first}\nReading\n");
        let page = insert(&page, "new\n");
        assert!(page.starts_with("# Title\n") && page.ends_with("\nReading\n"));
        assert!(page.contains("\nnew\n") && !page.contains("old"));
        assert_eq!(page, insert(&page, "new\n"));
    }
}
