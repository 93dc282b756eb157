//! What the guest tells the host: one line of JSON for each check, on a serial port of its
//! own. The kernel writes its messages to the first port whenever it likes, and would tear
//! these lines.

use serde::{Deserialize, Serialize};

use crate::{check::Check, series::Series};

/// The guest's end of the port.
pub const GUEST_PORT: &str = "/dev/ttyS1";

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// Serde takes a missing `failure` for none: any other line of JSON about a check would have
// passed it.
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Which one.
    pub check: Check,
    /// Why it failed; `None` if it held.
    pub failure: Option<String>,
}

impl Outcome {
    /// The line, without its end.
    ///
    /// # Errors
    ///
    /// None that can happen: there is nothing in it that JSON cannot hold.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Reads a line; `None` if the guest's driver did not write it.
    pub fn from_line(line: &str) -> Option<Self> {
        // The port's line discipline ends lines with a carriage return too.
        serde_json::from_str(line.trim()).ok()
    }
}

/// What is known of every check of a kernel once the guest has ended, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Those that are made.
    checks: &'static [Check],
    outcomes: Vec<Outcome>,
}

impl Report {
    /// Of these checks nothing is known yet.
    pub fn of_checks(checks: &'static [Check]) -> Self {
        Self {
            checks,
            outcomes: Vec::new(),
        }
    }

    /// Takes what the guest said. The first word on a check counts, and none on one that is not made.
    pub fn add(&mut self, outcome: Outcome) {
        if self.checks.contains(&outcome.check) && self.of(outcome.check).is_none() {
            self.outcomes.push(outcome);
        }
    }

    /// Counts every check of which nothing was said as failed for this reason, and returns
    /// what it added.
    pub fn finish(&mut self, reason: &str) -> &[Outcome] {
        let said = self.outcomes.len();
        for &check in self.checks {
            self.add(Outcome {
                check,
                failure: Some(reason.to_owned()),
            });
        }
        &self.outcomes[said..]
    }

    /// What was said of a check.
    pub fn of(&self, check: Check) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.check == check)
    }

    /// Whether something was said of every check.
    pub fn is_complete(&self) -> bool {
        self.outcomes.len() == self.checks.len()
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.failure.is_some())
    }
}

/// The line that announces so many checks, in the words of Rust's test programs, so that whatever
/// reads theirs reads this.
pub fn announcement(checks: usize) -> String {
    format!("running {checks} tests")
}

/// The line of one check, in the same words.
pub fn line(series: Series, outcome: &Outcome) -> String {
    let verdict = match outcome.failure {
        None => "ok",
        Some(_) => "FAILED",
    };
    format!("test {} ... {verdict}", name(series, outcome))
}

/// The end of the report, in the same words.
pub fn result(reports: &[(Series, Report)], seconds: f64) -> String {
    let failures: Vec<_> = reports
        .iter()
        .flat_map(|(series, report)| report.failures().map(|it| name(*series, it)))
        .collect();
    let said: usize = reports.iter().map(|(_, it)| it.outcomes.len()).sum();
    let failed = failures.len();
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let mut text = String::from("\n");
    if failed > 0 {
        text += &format!("failures:\n    {}\n\n", failures.join("\n    "));
    }
    text + &format!(
        "test result: {verdict}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in \
         {seconds:.2}s\n",
        said - failed
    )
}

/// A check's name in reports.
pub fn name(series: Series, outcome: &Outcome) -> String {
    format!("{series}::{}", outcome.check.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(check: Check, failure: Option<&str>) -> Outcome {
        Outcome {
            check,
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn an_outcome_of_many_lines_is_one_line_on_the_port() {
        let failed = outcome(
            Check::TheProgramsLoadAndAttach,
            Some("the verifier says:\r\n0: (bf) r6 = r1\n\"ütsch\""),
        );
        let line = failed.to_line().unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(Outcome::from_line(&format!("{line}\r\n")), Some(failed));
    }

    #[test]
    fn a_torn_or_foreign_line_says_nothing_of_a_check() {
        let line = outcome(Check::CleaningUpLeavesNothing, None)
            .to_line()
            .unwrap();
        for length in 0..line.len() {
            assert_eq!(Outcome::from_line(&line[..length]), None);
        }
        assert_eq!(Outcome::from_line("[   13.7] vxlan100: link up"), None);
    }

    #[test]
    fn a_check_that_the_guest_never_came_to_has_failed() {
        let mut report = Report::of_checks(Check::with(true));
        report.add(outcome(Check::TheProgramsLoadAndAttach, None));
        report.finish("the kernel panicked");
        assert!(report.is_complete());
        assert_eq!(report.failures().count(), Check::with(true).len() - 1);
        let series: [Series; 2] = ["6.1", "6.12"].map(|text| text.parse().unwrap());
        let mut whole = Report::of_checks(Check::with(true));
        for &check in Check::with(true) {
            whole.add(outcome(check, None));
        }
        let text = result(&[(series[0], whole), (series[1], report)], 1.0);
        let all = Check::with(true).len();
        let counts = format!("FAILED. {} passed; {} failed;", all + 1, all - 1);
        assert!(text.contains(&counts), "{text}");
        assert!(!text.contains("    6.12::the_programs_load_and_attach\n"));
        assert!(!text.contains("    6.1::"), "{text}");
        assert!(text.contains("    6.12::cleaning_up_leaves_nothing\n"));
    }

    #[test]
    fn what_was_said_first_of_a_check_counts() {
        let mut report = Report::of_checks(Check::with(true));
        let check = Check::CleaningUpLeavesNothing;
        report.add(outcome(check, Some("a pin is left")));
        report.add(outcome(check, None));
        assert_eq!(report.failures().count(), 1);
        for &check in Check::with(true) {
            report.add(outcome(check, None));
        }
        assert!(report.is_complete());
    }
}
