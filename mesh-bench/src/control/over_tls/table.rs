//! Both ways beside one another, and what was to be reached.

use comfy_table::{CellAlignment, Table};

use super::{Cluster, back::Back, idle::Idle, median};
use crate::figure::STYLE;

/// How much more processor time idle agents may take over TLS.
const MOST_MORE: f64 = 0.15;

/// Resident kB of an agent that waits over TLS.
const MOST_MEMORY: f64 = 40.0;

/// Seconds until all are back over TLS.
const LONGEST_RETURN: f64 = 60.0;

/// What is shown of each way: its name, how it is written, and where it is from.
type Line = (&'static str, usize, fn(&Cluster) -> f64);

const LINES: [Line; 9] = [
    ("idle, cores (median)", 3, |it| it.idle(|round| round.cores)),
    ("per agent, µs/s", 1, |it| {
        it.idle(|round| round.cores) * 1e6 / it.agents()
    }),
    ("RSS idle, MB", 1, |it| {
        it.idle(|round| bytes(round.resident)) / 1e6
    }),
    ("per agent, kB", 1, kilobytes_per_agent),
    ("of it for its connection, kB", 1, |it| {
        let resident = it.idle(|round| bytes(round.resident));
        (resident - bytes(it.without_agents)) / 1e3 / it.agents()
    }),
    ("killed until it listens again, s (most)", 2, |it| {
        it.most(|round| round.down)
    }),
    ("killed until all are back, s (most)", 2, |it| {
        it.most(|round| round.back)
    }),
    ("CPU until all are back, s (median)", 2, |it| {
        median(it.back.iter().map(|round| round.processor))
    }),
    ("peak RSS until all are back, MB (most)", 1, |it| {
        it.most(|round| bytes(round.peak)) / 1e6
    }),
];

impl Cluster {
    /// Of a quantity of the idle rounds the median.
    fn idle(&self, of: impl Fn(&Idle) -> f64) -> f64 {
        median(self.idle.iter().map(of))
    }

    /// Of a quantity of those in which all came back the largest.
    fn most(&self, of: impl Fn(&Back) -> f64) -> f64 {
        self.back.iter().map(of).fold(f64::NAN, f64::max)
    }
}

/// All that nodes and agents made resident, in kB for each.
fn kilobytes_per_agent(it: &Cluster) -> f64 {
    (it.idle(|round| bytes(round.resident)) - bytes(it.empty)) / 1e3 / it.agents()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn bytes(bytes: u64) -> f64 {
    bytes as f64
}

/// For a terminal, and as it stands in the documentation.
pub(super) fn text(plain: &Cluster, over_tls: &Cluster) -> String {
    let mut figures = new(&["", "plain", "TLS"]);
    for (name, digits, of) in LINES {
        figures.add_row([
            name.to_owned(),
            format!("{:.digits$}", of(plain)),
            format!("{:.digits$}", of(over_tls)),
        ]);
    }
    let alone = |it: &Cluster| {
        let cores = it.alone.as_ref().map(|alone| alone.cores);
        cores.map_or_else(String::new, |cores| format!("{cores:.3}"))
    };
    figures.add_row([
        "idle with nothing beside it, cores".to_owned(),
        alone(plain),
        alone(over_tls),
    ]);
    let attempts = |it: &Cluster| it.back.iter().map(|round| round.attempts).sum::<u64>();
    figures.add_row([
        "failed attempts until all are back".to_owned(),
        attempts(plain).to_string(),
        attempts(over_tls).to_string(),
    ]);
    // Of the same seconds each.
    let more: Vec<f64> = (plain.idle.iter().zip(&over_tls.idle))
        .map(|(plain, over_tls)| over_tls.cores / plain.cores - 1.0)
        .collect();
    let each: Vec<String> = more.iter().map(|it| format!("{:.0}", it * 100.0)).collect();
    let more = median(more.into_iter());
    let back = over_tls.most(|round| round.back);
    let memory = kilobytes_per_agent(over_tls);
    let mut goals = new(&["goal", "limit", "measured", ""]);
    for (what, limit, measured, met) in [
        (
            "idle CPU over TLS, more than plain",
            format!("≤ {:.0} %", MOST_MORE * 100.0),
            format!("{:.1} % (rounds: {})", more * 100.0, each.join(", ")),
            more <= MOST_MORE,
        ),
        (
            "memory of an agent over TLS",
            format!("≤ {MOST_MEMORY:.0} kB"),
            format!("{memory:.1} kB"),
            memory <= MOST_MEMORY,
        ),
        (
            "all back over TLS after a kill",
            format!("≤ {LONGEST_RETURN:.0} s"),
            format!("{back:.1} s"),
            back <= LONGEST_RETURN,
        ),
    ] {
        let met = if met { "met" } else { "NOT MET" };
        goals.add_row([what, &limit, &measured, met]);
    }
    format!("{goals}\n\n{figures}")
}

fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
