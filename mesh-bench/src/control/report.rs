//! The figures of a run, for people and for programs.

mod markdown;
mod plot;

use comfy_table::{CellAlignment, Table};

use super::{
    Setting,
    measure::{Cluster, Measured},
};
use crate::{figure::STYLE, machine::Machine};

/// The goals hold for this many agents.
const GOAL_AGENTS: usize = 10_000;

/// Everything a run showed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) setting: Setting,
    pub(crate) measured: Vec<Measured>,
}

/// A goal and what was measured.
struct Goal {
    what: String,
    limit: &'static str,
    measured: String,
    met: bool,
}

impl Report {
    fn goals(&self) -> Vec<Goal> {
        self.measured.iter().flat_map(goals).collect()
    }

    /// Everything, for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut goals = new(&["goal", "limit", "measured", ""]);
        for goal in self.goals() {
            let met = if goal.met { "met" } else { "NOT MET" };
            goals.add_row([&goal.what, goal.limit, &goal.measured, met]);
        }
        let mut figures = new(&HEADER);
        for (measured, cluster) in self.clusters() {
            figures.add_row(row(measured, cluster));
        }
        format!(
            "{goals}\n\n{figures}\n\nMeasured on {}.",
            self.circumstances()
        )
    }

    /// Everything, for other programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let goals: Vec<serde_json::Value> = self
            .goals()
            .into_iter()
            .map(|goal| {
                serde_json::json!({
                    "goal": goal.what, "limit": goal.limit, "measured": goal.measured, "met": goal.met,
                })
            })
            .collect();
        serde_json::json!({
            "machine": self.machine, "setting": self.setting, "goals": goals, "measured": self.measured,
        })
    }

    fn clusters(&self) -> impl Iterator<Item = (&Measured, &Cluster)> {
        self.measured
            .iter()
            .flat_map(|measured| std::iter::repeat(measured).zip(&measured.clusters))
    }

    fn circumstances(&self) -> String {
        format!(
            "{}; agents on the same machine, {} each; idle for {} s, {} joins",
            self.machine,
            match self.setting.connections {
                1 => "one connection",
                _ => "two connections",
            },
            self.setting.idle_seconds,
            self.setting.joins
        )
    }
}

fn goals(measured: &Measured) -> Vec<Goal> {
    let store = measured.store;
    let mut goals = Vec::new();
    let mut add = |what: &str, limit, text: String, met| {
        goals.push(Goal {
            what: format!("{store}: {what}"),
            limit,
            measured: text,
            met,
        });
    };
    if let Some(cluster) = measured.clusters.iter().find(|it| it.agents == GOAL_AGENTS) {
        let (idle, join, storm) = (&cluster.idle, &cluster.join, &cluster.storm);
        add(
            "10,000 agents idle, CPU",
            "≤ 0.25 cores",
            format!("{:.2} cores", idle.cores),
            idle.cores <= 0.25 && idle.errors == 0,
        );
        let resident = megabytes(idle.resident_bytes);
        add(
            "10,000 agents idle, memory",
            "≤ 80 MB",
            format!("{resident:.0} MB"),
            resident <= 80.0,
        );
        add(
            "one join, seen by 10,000, p99",
            "≤ 200 ms",
            format!("{:.0} ms", join.p99_ms),
            join.p99_ms <= 200.0,
        );
        add(
            "10,000 registrations at once",
            "< 15 s, no error",
            format!("{:.1} s, {} errors", storm.seconds, storm.errors),
            storm.seconds < 15.0 && storm.errors == 0,
        );
    }
    let it = &measured.exhaustion;
    add(
        "300 hosts for 255 subnets",
        "255 and 45 × 503",
        format!("{} and {} × 503", it.distinct_subnets, it.refused_503),
        (it.distinct_subnets, it.admitted, it.refused_503) == (255, 255, 45),
    );
    goals
}

const HEADER: [&str; 13] = [
    "store",
    "agents",
    "idle, cores",
    "per agent, µs/s",
    "RSS registered, MB",
    "RSS idle, MB",
    "PSS, MB",
    "per agent, kB",
    "join p50, ms",
    "p99",
    "max",
    "CPU per join, ms",
    "all register, s",
];

fn row(measured: &Measured, cluster: &Cluster) -> [String; 13] {
    let (idle, join) = (&cluster.idle, &cluster.join);
    [
        measured.store.to_string(),
        cluster.agents.to_string(),
        format!("{:.3}", idle.cores),
        format!("{:.1}", cluster.processor_us_per_agent()),
        format!("{:.1}", megabytes(cluster.storm.resident_bytes)),
        format!("{:.1}", megabytes(idle.resident_bytes)),
        format!("{:.1}", megabytes(idle.proportional_bytes)),
        format!("{:.1}", cluster.bytes_per_agent() / 1e3),
        format!("{:.1}", join.p50_ms),
        format!("{:.1}", join.p99_ms),
        format!("{:.1}", join.max_ms),
        format!("{:.0}", join.processor_ms_per_join),
        format!("{:.2}", cluster.storm.seconds),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
