//! Tables and times for people.

use comfy_table::{Table as Cells, TableStyle};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::output::print_list;

/// Rows under a head, as wide as what is in them.
#[derive(Debug)]
pub struct Table(Cells);

impl Table {
    /// One with this head.
    #[must_use]
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        let mut cells = Cells::new();
        cells.load_style(TableStyle::new());
        cells.set_header(head);
        Self(cells)
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, row: [String; N]) {
        // What others said, which a terminal must not take for orders.
        let shown = row.map(|cell| cell.replace(char::is_control, " "));
        self.0.add_row(shown);
    }

    /// Prints it.
    ///
    /// # Errors
    ///
    /// As [`print_list`].
    pub fn print(&self) -> anyhow::Result<()> {
        let lines = self.0.lines().map(|it| format!("{}\n", it.trim_end()));
        print_list(&lines.collect::<String>())
    }
}

/// So many seconds, in words.
#[must_use]
pub fn span(seconds: i64) -> String {
    match seconds {
        ..0 => "nothing".to_owned(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long ago a moment was.
#[must_use]
pub fn ago(now: i64, then: i64) -> String {
    format!("{} ago", span((now - then).max(0)))
}

/// A moment in Unix seconds, in UTC (RFC 3339).
#[must_use]
pub fn moment(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{seconds} s since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc() {
        assert_eq!(moment(1_800_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(moment(i64::MAX), format!("{} s since 1970", i64::MAX));
    }

    #[test]
    fn orders_to_a_terminal_are_not_passed_on() {
        let mut table = Table::new(["ID", "NODE"]);
        table.row(["4f1c".to_owned(), "al\u{1b}[2Jpha".to_owned()]);
        let text: Vec<String> = table.0.lines().collect();
        assert!(!text.concat().contains('\u{1b}'), "{text:?}");
    }
}
