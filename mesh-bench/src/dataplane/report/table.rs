//! The figures for a terminal.

use comfy_table::{CellAlignment, Table};

use super::{Report, goals, lines, number};
use crate::{
    dataplane::{programs, statistics::Spread, topology::Topology},
    figure::STYLE,
};

impl Report {
    /// Everything, for people.
    pub(crate) fn text(&self) -> String {
        let mut parts: Vec<String> = self
            .series
            .iter()
            .map(|series| {
                let mut table = new(&["", "median", "quartiles", "ratio", "quartiles", "range"]);
                for line in lines(series) {
                    table.add_row([
                        line.topology.name().to_owned(),
                        number(line.value.median),
                        quartiles(line.value),
                        format!("{:.2}", line.ratio.median),
                        quartiles(line.ratio),
                        format!("{:.2} – {:.2}", line.ratio.smallest, line.ratio.largest),
                    ]);
                }
                let better = match series.measure.is_rate() {
                    true => "more is better",
                    false => "less is better",
                };
                format!(
                    "{}, {} ({better}; ratio to {})\n{table}",
                    series.measure.title(),
                    series.measure.unit(),
                    Topology::REFERENCE.name()
                )
            })
            .collect();
        parts.push(format!(
            "eBPF programs, ns per packet\n{}",
            self.programs_table()
        ));
        parts.push(format!("Goals\n{}", self.goals_table()));
        parts.push(format!("Measured on {}.", self.machine));
        parts.join("\n\n")
    }

    fn programs_table(&self) -> Table {
        let [few, many] = programs::PEERS_TITLES;
        let mut table = new(&["program", "packets of", few, many, "ratio"]);
        for cost in &self.programs {
            let mut row = vec![cost.program.to_owned(), cost.packets_of().to_owned()];
            row.extend(cost.ns.iter().map(|ns| format!("{:.0}", ns.median)));
            row.push(cost.growth().map_or(String::new(), |it| format!("{it:.2}")));
            table.add_row(row);
        }
        table
    }

    fn goals_table(&self) -> Table {
        let mut table = new(&["", "goal", "measured", "", "quartiles"]);
        for goal in goals::goals(self) {
            table.add_row([
                goal.what.to_owned(),
                goal.limit.to_string(),
                goal.shown(),
                if goal.met { "met" } else { "NOT MET" }.to_owned(),
                goal.spread.map_or(String::new(), quartiles),
            ]);
        }
        table
    }
}

fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn quartiles(spread: Spread) -> String {
    format!("{} – {}", number(spread.lower), number(spread.upper))
}
