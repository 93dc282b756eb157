//! What a check tells, of whichever nodes: rows, and what they come to. Pure, but for printing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::way::{Outcome, Row};
use crate::{
    Verdict,
    output::{GOOD, Table, say, say_json, styled},
};
use anstyle::{AnsiColor, Style};

/// So many ways that fail are named in the last line.
const MOST_NAMED: usize = 6;

/// A check, as a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// `ok`, `failed`, or `unknown` where nothing failed and something could not be told.
    pub(crate) result: Outcome,
    /// How many ways there are, each in one direction, and how many of them pass every test.
    pub(crate) ways: usize,
    pub(crate) ways_ok: usize,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// Of all rows. One way is what is from one node to another.
    pub(crate) fn of(rows: Vec<Row>) -> Self {
        let mut ways: BTreeMap<(&str, &str), Outcome> = BTreeMap::new();
        for row in rows.iter().filter(|row| !row.to.is_empty()) {
            let worst = ways.entry((&row.from, &row.to)).or_insert(row.result);
            *worst = (*worst).max(row.result);
        }
        let passed = |outcome: &Outcome| [Outcome::Ok, Outcome::Warning].contains(outcome);
        let worst = rows.iter().map(|row| row.result).max();
        Self {
            result: match worst.unwrap_or(Outcome::Ok) {
                Outcome::Warning => Outcome::Ok,
                other => other,
            },
            ways: ways.len(),
            ways_ok: ways.values().filter(|worst| passed(worst)).count(),
            rows,
        }
    }

    /// What the command ends with.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.result {
            Outcome::Ok | Outcome::Warning => Verdict::Fine,
            Outcome::Failed => Verdict::Wrong,
            Outcome::Unknown => Verdict::Unknown,
        }
    }

    /// Prints it: all rows, or those alone that do not pass, without those that follow from others.
    pub(crate) fn print(&self, json: bool, all: bool) -> anyhow::Result<()> {
        match json {
            true => say_json(self),
            false => say(self.text(all)),
        }
    }

    fn text(&self, all: bool) -> String {
        let mut table = Table::new(["TEST", "FROM", "TO", "RESULT", "DETAIL"]);
        let mut shown = 0;
        for row in self
            .rows
            .iter()
            .filter(|row| all || row.result != Outcome::Ok && !row.follows)
        {
            shown += 1;
            let codes = row.codes.join(", ");
            let detail = match (codes.as_str(), row.detail.as_str()) {
                ("", detail) => detail.to_owned(),
                (codes, detail) => format!("{codes}: {detail}"),
            };
            table.row([
                row.test.word().to_owned(),
                row.from.clone(),
                row.to.clone(),
                row.result.word().to_owned(),
                detail,
            ]);
        }
        let summary = self.summary();
        match shown {
            0 => summary,
            _ => format!("{}\n\n{summary}", table.text()),
        }
    }

    /// The last line: how many pass, and who fails for what.
    fn summary(&self) -> String {
        let mut named: Vec<String> = Vec::new();
        for row in &self.rows {
            if row.result != Outcome::Failed {
                continue;
            }
            let way = match row.to.as_str() {
                "" => row.from.clone(),
                to => format!("{} → {to}", row.from),
            };
            let why = match row.codes.is_empty() {
                true => continue,
                false => row.codes.join(", "),
            };
            named.push(crate::output::printable(&format!("{way} ({why})")));
        }
        if named.len() > MOST_NAMED {
            let more = named.len() - MOST_NAMED;
            named.truncate(MOST_NAMED);
            named.push(format!("{more} more"));
        }
        let style = match self.result {
            Outcome::Ok | Outcome::Warning => GOOD,
            Outcome::Unknown => AnsiColor::Yellow.on_default(),
            Outcome::Failed => AnsiColor::Red.on_default().bold(),
        };
        let word: Style = style;
        let head = styled(word, format!("{} of {} ways pass", self.ways_ok, self.ways));
        match named.is_empty() {
            true => head,
            false => format!("{head}; failed: {}", named.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::way::{
            rows,
            tests::{fine, swallowed},
        },
        output::held,
    };

    fn report() -> Report {
        let mut all = rows("host1", "host2", &fine(2));
        all.extend(rows("host1", "host3", &swallowed(3)));
        Report::of(all)
    }

    #[test]
    fn ways_are_counted_and_those_that_fail_are_named_with_why() {
        let report = report();
        assert_eq!((report.ways, report.ways_ok), (2, 1));
        assert_eq!(report.verdict(), Verdict::Wrong);
        let text = anstream::adapter::strip_str(&report.text(false)).to_string();
        assert!(!text.contains("host2"), "{text}");
        assert!(
            text.ends_with("1 of 2 ways pass; failed: host1 → host3 (vxlan-not-through)"),
            "{text}"
        );
        assert!(report.text(true).contains("host2"));
    }

    #[test]
    fn nothing_failed_and_something_not_known_cannot_be_told() {
        let mut all = rows("host1", "host2", &fine(2));
        all[3].result = Outcome::Unknown;
        assert_eq!(Report::of(all.clone()).verdict(), Verdict::Unknown);
        all[3].result = Outcome::Warning;
        assert_eq!(Report::of(all).verdict(), Verdict::Fine);
        assert_eq!(Report::of(Vec::new()).verdict(), Verdict::Fine);
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("check", &report());
    }
}
