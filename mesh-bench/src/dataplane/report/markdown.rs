//! The figures for the documentation.

use std::fmt::Write as _;

use super::{Report, goals, lines, number};
use crate::dataplane::{programs, topology::Topology};

impl Report {
    /// Circumstances, goals and all measures, as Markdown.
    pub(crate) fn markdown(&self) -> String {
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
                "| {} | {} | **{}** | {quartiles} | {} |",
                goal.what,
                goal.limit,
                goal.shown(),
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
