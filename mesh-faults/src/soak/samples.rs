//! What was measured over time, and whether the end is like the beginning.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

/// So much of the run is for warming up: caches and allocators fill.
const WARM_UP: f64 = 0.25;
/// How many samples the beginning and the end are each taken from.
const WINDOW: usize = 3;

const MEMORY: &str = "MiB of memory";
const DESCRIPTORS: &str = "file descriptors";
const ENTRIES: &str = "map entries";

pub(super) fn memory_of(name: &str) -> String {
    format!("{name}: {MEMORY}")
}

pub(super) fn descriptors_of(name: &str) -> String {
    format!("{name}: {DESCRIPTORS}")
}

pub(super) fn entries_of(name: &str) -> String {
    format!("{name}: {ENTRIES}")
}

/// Series of figures by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    pub(super) times: Vec<Duration>,
    pub(super) series: BTreeMap<String, Vec<f64>>,
}

/// How the end of a series compares with its beginning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) begin: f64,
    pub(super) end: f64,
    /// How much the end may exceed the beginning, or differ from it for map entries.
    pub(super) tolerance: f64,
}

impl Samples {
    pub(super) fn add(&mut self, time: Duration, figures: Vec<(String, f64)>) {
        self.times.push(time);
        for (name, figure) in figures {
            self.series.entry(name).or_default().push(figure);
        }
    }

    /// One for each series.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        self.series
            .iter()
            .map(|(name, figures)| {
                let (begin, end) = ends(figures);
                Verdict {
                    name: name.clone(),
                    begin,
                    end,
                    tolerance: tolerance(name, begin),
                }
            })
            .collect()
    }

    pub(super) fn json(&self, broken: &[String]) -> serde_json::Result<String> {
        let seconds: Vec<f64> = self.times.iter().map(Duration::as_secs_f64).collect();
        serde_json::to_string_pretty(
            &json!({"broken": broken, "seconds": seconds, "series": self.series}),
        )
    }
}

/// Medians of the first samples after the warm-up and of the last ones.
fn ends(figures: &[f64]) -> (f64, f64) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a quarter of a count of samples"
    )]
    let warm = (figures.len() as f64 * WARM_UP) as usize;
    let settled = &figures[warm..];
    let window = WINDOW.min(settled.len());
    (
        median(&settled[..window]),
        median(&settled[settled.len() - window..]),
    )
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Memory may grow by a tenth or 2 MiB, whichever is more: allocators keep what they had at
/// the peak. Descriptors may differ by two: connections that are being closed.
fn tolerance(name: &str, begin: f64) -> f64 {
    match name {
        _ if name.ends_with(MEMORY) => (begin * 0.1).max(2.0),
        _ if name.ends_with(DESCRIPTORS) => 2.0,
        _ => 0.0,
    }
}

impl Verdict {
    pub(super) fn holds(&self) -> bool {
        let growth = self.end - self.begin;
        match self.name.ends_with(ENTRIES) {
            true => growth == 0.0,
            false => growth <= self.tolerance,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {:.1} after the warm-up, {:.1} at the end; {:.1} more are tolerated",
            self.name, self.begin, self.end, self.tolerance
        )
    }
}

/// The table for people.
pub(super) fn table(verdicts: &[Verdict]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(crate::report::STYLE).set_header([
        "",
        "after warm-up",
        "at the end",
        "tolerated",
        "",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    for verdict in verdicts {
        table.add_row([
            verdict.name.clone(),
            format!("{:.1}", verdict.begin),
            format!("{:.1}", verdict.end),
            format!("+{:.1}", verdict.tolerance),
            if verdict.holds() { "ok" } else { "FAILED" }.to_owned(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str, figures: &[f64]) -> Verdict {
        let mut samples = Samples::default();
        for figure in figures {
            samples.add(Duration::ZERO, vec![(name.to_owned(), *figure)]);
        }
        samples.verdicts().remove(0)
    }

    #[test]
    fn growth_in_the_warm_up_is_none() {
        let figures = [5.0, 10.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.5];
        assert!(verdict(&memory_of("agent"), &figures).holds());
    }

    #[test]
    fn a_leak_is_found_in_each_kind_of_figure() {
        let memory: Vec<f64> = (0..20).map(|turn| 20.0 + f64::from(turn)).collect();
        assert!(!verdict(&memory_of("agent"), &memory).holds());
        let descriptors: Vec<f64> = (0..20).map(|turn| 12.0 + f64::from(turn)).collect();
        assert!(!verdict(&descriptors_of("agent"), &descriptors).holds());
        let fewer = [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0];
        assert!(
            !verdict(&entries_of("peers"), &fewer).holds(),
            "a lost entry"
        );
        assert!(verdict(&entries_of("peers"), &[2.0; 9]).holds());
    }
}
