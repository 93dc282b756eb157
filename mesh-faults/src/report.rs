//! The results: a table on the terminal, one in Markdown, JSON, and the closing lines.

mod machine;

use std::time::Duration;

use comfy_table::{LineStyle, TableStyle};
use serde_json::{Value, json};

pub(crate) use machine::Machine;

use crate::{fault::Fault, judge::Measured, run::Outcome, scene::Repair};

/// What the repair of a kernel object may take in 99 of 100 cases.
pub(crate) const REPAIR_GOAL: Duration = Duration::from_millis(100);

/// What became of all faults.
pub(crate) struct Report {
    machine: Machine,
    seed: u64,
    entries: Vec<Entry>,
}

struct Entry {
    fault: Fault,
    fate: Fate,
}

enum Fate {
    Done(Outcome),
    LeftOut(String),
}

impl Report {
    pub(crate) fn new(machine: Machine, seed: u64) -> Self {
        Self {
            machine,
            seed,
            entries: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, fault: &Fault, outcome: Outcome) {
        self.entries.push(Entry {
            fault: *fault,
            fate: Fate::Done(outcome),
        });
    }

    pub(crate) fn leave_out(&mut self, fault: &Fault, reason: String) {
        self.entries.push(Entry {
            fault: *fault,
            fate: Fate::LeftOut(reason),
        });
    }

    fn outcomes(&self) -> impl Iterator<Item = (&Fault, &Outcome)> {
        self.entries.iter().filter_map(|entry| match &entry.fate {
            Fate::Done(outcome) => Some((&entry.fault, outcome)),
            Fate::LeftOut(_) => None,
        })
    }

    fn left_out(&self) -> impl Iterator<Item = (&Fault, &str)> {
        self.entries.iter().filter_map(|entry| match &entry.fate {
            Fate::LeftOut(reason) => Some((&entry.fault, reason.as_str())),
            Fate::Done(_) => None,
        })
    }

    pub(crate) fn failed(&self) -> usize {
        self.outcomes().filter(|(_, it)| !it.passed()).count()
    }

    fn passed(&self) -> usize {
        self.outcomes().filter(|(_, it)| it.passed()).count()
    }

    /// `N passed, N failed`, as every suite of this project ends.
    pub(crate) fn last_line(&self) -> String {
        let line = format!("{} passed, {} failed", self.passed(), self.failed());
        match self.left_out().count() {
            0 => line,
            skipped => format!("{line}, {skipped} skipped"),
        }
    }

    /// The end in the words of Rust's test programs.
    pub(crate) fn result(&self, seconds: f64) -> String {
        let names: Vec<&str> = self
            .outcomes()
            .filter(|(_, it)| !it.passed())
            .map(|(fault, _)| fault.name)
            .collect();
        let verdict = if names.is_empty() { "ok" } else { "FAILED" };
        let list = match names.is_empty() {
            true => String::new(),
            false => format!("failures:\n    {}\n\n", names.join("\n    ")),
        };
        format!(
            "{list}test result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; \
             0 filtered out; finished in {seconds:.2}s\n",
            self.passed(),
            self.failed(),
            self.left_out().count()
        )
    }

    /// How long repairs took, in a line for each kind.
    fn repair_lines(&self) -> Vec<String> {
        let of = |pick: fn(&Repair) -> Option<Duration>| {
            let mut times: Vec<Duration> = self
                .outcomes()
                .flat_map(|(_, outcome)| outcome.measured.repairs.iter().filter_map(pick))
                .collect();
            times.sort_unstable();
            times
        };
        let announced = of(|repair| match repair {
            Repair::Announced(time) => Some(*time),
            Repair::Found(_) => None,
        });
        let found = of(|repair| match repair {
            Repair::Found(time) => Some(*time),
            Repair::Announced(_) => None,
        });
        let line = |times: &[Duration], what: &str| {
            let longest = times.last()?;
            Some(format!(
                "{} repairs of {what}: median {} ms, 99th percentile {} ms, longest {} ms",
                times.len(),
                percentile(times, 50).as_millis(),
                percentile(times, 99).as_millis(),
                longest.as_millis(),
            ))
        };
        let goal = REPAIR_GOAL.as_millis();
        [
            line(&announced, "what the kernel announces")
                .map(|line| format!("{line} (goal: 99th percentile under {goal} ms)")),
            line(&found, "what only a look finds"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(STYLE).set_header(COLUMNS);
        // Everything but the name and the verdict is a number.
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        for (fault, outcome) in self.outcomes() {
            table.add_row(row(fault.name, outcome));
        }
        let mut text = format!("{table}\n");
        for (fault, outcome) in self.outcomes() {
            for broken in &outcome.broken {
                text += &format!("\n{} FAILED: {broken}", fault.name);
            }
            for note in &outcome.notes {
                text += &format!("\n{}: {note}", fault.name);
            }
        }
        for (fault, reason) in self.left_out() {
            text += &format!("\n{} skipped: {reason}", fault.name);
        }
        for line in self.repair_lines() {
            text += &format!("\n{line}");
        }
        text + &format!("\nseed {}\n", self.seed)
    }

    /// The tables of docs/RELIABILITY.md.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.machine.describe());
        for line in self.repair_lines() {
            text += &format!("{line}.\n\n");
        }
        text += "| fault | what happens | promised | lost of sent | longest gap | flowing after | repaired after | |\n";
        text += "|---|---|---|---:|---:|---:|---:|---|\n";
        for (fault, outcome) in self.outcomes() {
            let [_, lost, gap, recovery, repair, _, verdict, _] = row(fault.name, outcome);
            text += &format!(
                "| `{}` | {} | {} | {lost} | {gap} | {recovery} | {repair} | {verdict} |\n",
                fault.name,
                fault.breaks,
                fault.promise.in_words(),
            );
        }
        for (fault, reason) in self.left_out() {
            text += &format!(
                "| `{}` | {} | {} | | | | | skipped: {reason} |\n",
                fault.name,
                fault.breaks,
                fault.promise.in_words(),
            );
        }
        text
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let faults: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| {
                let mut value = json!({
                    "name": entry.fault.name,
                    "breaks": entry.fault.breaks,
                    "promise": entry.fault.promise.in_words(),
                    "command": entry.fault.command(),
                });
                let fate = match &entry.fate {
                    Fate::LeftOut(reason) => json!({"skipped": reason}),
                    Fate::Done(outcome) => figures(outcome),
                };
                if let (Value::Object(value), Value::Object(fate)) = (&mut value, fate) {
                    value.extend(fate);
                }
                value
            })
            .collect();
        serde_json::to_string_pretty(&json!({
            "machine": self.machine.describe(),
            "seed": self.seed,
            "passed": self.passed(),
            "failed": self.failed(),
            "skipped": self.left_out().count(),
            "faults": faults,
        }))
    }
}

/// No lines but the one below the header.
pub(crate) const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

const COLUMNS: [&str; 8] = [
    "fault",
    "lost",
    "gap ms",
    "flowing ms",
    "repaired ms",
    "TCP stall ms",
    "",
    "s",
];

fn row(name: &str, outcome: &Outcome) -> [String; 8] {
    let Measured {
        sent,
        lost,
        longest_gap,
        recovery,
        repairs,
        longest_stall,
        ..
    } = &outcome.measured;
    let milliseconds = |time: &Duration| time.as_millis().to_string();
    let of_loss = |time: &Duration| match lost {
        0 => "–".to_owned(),
        _ => milliseconds(time),
    };
    [
        name.to_owned(),
        format!("{lost} of {sent}"),
        of_loss(longest_gap),
        of_loss(recovery),
        repairs
            .iter()
            .map(|repair| repair.time())
            .max()
            .map_or("–".to_owned(), |time| milliseconds(&time)),
        milliseconds(longest_stall),
        if outcome.passed() { "ok" } else { "FAILED" }.to_owned(),
        format!("{:.1}", outcome.seconds),
    ]
}

fn figures(outcome: &Outcome) -> Value {
    let measured = &outcome.measured;
    let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
    json!({
        "passed": outcome.passed(),
        "broken": outcome.broken,
        "notes": outcome.notes,
        "seconds": outcome.seconds,
        "sent": measured.sent,
        "lost": measured.lost,
        "lost_of_others": measured.lost_of_others,
        "longest_gap_ms": milliseconds(&measured.longest_gap),
        "flowing_after_ms": milliseconds(&measured.recovery),
        "repaired_after_ms": measured.repairs.iter().map(|repair| milliseconds(&repair.time())).collect::<Vec<_>>(),
        "longest_tcp_stall_ms": milliseconds(&measured.longest_stall),
        "lost_by_blow": measured.lost_by_blow,
        "routes_removed": measured.routes_removed,
    })
}

/// The smallest value that at least so many of a hundred do not exceed (nearest rank).
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&times[..5], 99), Duration::from_millis(5));
    }
}
