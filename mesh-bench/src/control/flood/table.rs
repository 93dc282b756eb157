//! What it showed, as tables.

use comfy_table::{CellAlignment, Table};

use super::{
    Watch,
    asked::{Outcome, Wish},
};
use crate::figure::{STYLE, percentile};

/// What became of the joins.
pub(super) fn of_joins(watches: &[Watch]) -> Table {
    let mut table = titled(&[
        "joins", "of", "joined", "refused", "429", "503", "failed", "p50, ms", "p99", "max",
    ]);
    for watch in watches.iter().filter(|watch| watch.tally.all() > 0) {
        for wish in Wish::ALL {
            let count = |outcome| watch.tally.count(wish, outcome).to_string();
            let waits = watch.tally.waits(wish);
            table.add_row([
                watch.what.to_owned(),
                wish.name().to_owned(),
                count(Outcome::Joined),
                count(Outcome::Refused),
                count(Outcome::SlowDown),
                count(Outcome::Overloaded),
                count(Outcome::Failed),
                percentile(&waits, 50),
                percentile(&waits, 99),
                percentile(&waits, 100),
            ]);
        }
    }
    aligned(table, 2)
}

/// How it was for the node meanwhile, and for the control plane.
pub(super) fn of_the_node(watches: &[Watch]) -> Table {
    let mut table = titled(&[
        "meanwhile",
        "joins, 1/s",
        "heartbeat p50, ms",
        "p99",
        "max",
        "cores",
        "RSS before, MB",
        "peak",
        "afterwards",
    ]);
    for watch in watches {
        let [before, peak, afterwards] =
            watch.resident.map(|bytes| (bytes / 1_000_000).to_string());
        table.add_row([
            watch.what.to_owned(),
            format!("{:.0}", f64::from(watch.tally.all()) / watch.seconds),
            percentile(&watch.heartbeats, 50),
            percentile(&watch.heartbeats, 99),
            percentile(&watch.heartbeats, 100),
            format!("{:.2}", watch.cores),
            before,
            peak,
            afterwards,
        ]);
    }
    aligned(table, 1)
}

fn titled(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(titles);
    table
}

fn aligned(mut table: Table, words: usize) -> Table {
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
