//! What is printed: words with colours on a terminal, tables, ages and sizes.

use std::{fmt::Display, io::Write as _, time::SystemTime};

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use comfy_table::{Table as Cells, TableStyle};
use mesh_problems::Severity;

/// Prints a line, without colours where there is no terminal (or NO_COLOR is set). Whoever closes our output has read enough.
pub(crate) fn say(line: impl Display) -> anyhow::Result<()> {
    match writeln!(anstream::stdout().lock(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints a document for a machine.
pub(crate) fn say_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    say(serde_json::to_string_pretty(document).context("cannot write it as JSON")?)
}

/// Words in a style.
pub(crate) fn styled(style: Style, words: impl Display) -> String {
    format!("{style}{words}{style:#}")
}

/// That of something good.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// That of something that stands out.
pub(crate) const BOLD: Style = Style::new().bold();

/// That of something as grave as that.
pub(crate) fn style_of(severity: Severity) -> Style {
    match severity {
        Severity::Notice => AnsiColor::Cyan.on_default(),
        Severity::Warning => AnsiColor::Yellow.on_default(),
        Severity::Error => AnsiColor::Red.on_default().bold(),
    }
}

/// Rows under a head, as wide as what is in them.
pub(crate) struct Table(Cells);

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        let mut cells = Cells::new();
        cells.load_style(TableStyle::new());
        cells.set_header(head);
        Self(cells)
    }

    /// What others said is shown without what a terminal would take for orders.
    pub(crate) fn row<const N: usize>(&mut self, row: [String; N]) {
        self.0.add_row(row.map(|cell| printable(&cell)));
    }

    /// As text, without spaces at the ends of lines.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<String> = self.0.lines().map(|it| it.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// The text without what a terminal would take for orders.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Now, in Unix seconds.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// So many seconds, in the largest unit that fits.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// So many bytes, in a unit of which there are few.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut rest = count;
    let mut below = 0;
    while rest >= 1000 && unit + 1 < UNITS.len() {
        below = rest % 1000 / 100;
        rest /= 1000;
        unit += 1;
    }
    match (rest, unit) {
        (0..10, 1..) => format!("{rest}.{below} {}", UNITS[unit]),
        _ => format!("{rest} {}", UNITS[unit]),
    }
}

/// Documents for machines, which are held as they are.
#[cfg(test)]
pub(crate) mod held {
    use std::{env, fs, path::Path};

    /// Where it is set, documents are written anew: look at what has changed, for others read them.
    const WRITE: &str = "QUILT_MESH_WRITE_DOCUMENTS";

    /// Compares a document with the one that is held under that name.
    pub(crate) fn is_as_it_was(name: &str, document: &impl serde::Serialize) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
        let path = folder.join(name).with_extension("json");
        let now = serde_json::to_string_pretty(document).unwrap() + "\n";
        if env::var_os(WRITE).is_some() {
            fs::write(&path, &now).unwrap();
        }
        let held = fs::read_to_string(&path).unwrap();
        assert_eq!(now, held, "{} ({WRITE}=1 writes it)", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_a_unit_of_which_there_are_few() {
        for (count, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_950, "9.9 kB"),
            (12_345, "12 kB"),
            (2_500_000, "2.5 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn orders_to_a_terminal_are_not_passed_on() {
        let mut table = Table::new(["PEER"]);
        table.row(["al\u{1b}[2Jpha".to_owned()]);
        assert!(!table.text().contains('\u{1b}'), "{}", table.text());
    }

    #[test]
    fn ages_are_shown_in_the_largest_unit_that_fits() {
        assert_eq!(
            [5, 90, 7200, 200_000].map(age),
            ["5 s", "1 min", "2 h", "2 d"]
        );
    }
}
