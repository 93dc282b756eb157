//! The one summary at the end.

use std::fmt::Write as _;
use std::time::Duration;

/// What came out of one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SuiteResult {
    pub(crate) suite: String,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Marked `#[ignore]`.
    pub(crate) skipped: usize,
    pub(crate) time: Duration,
    /// Names of failed tests, or what else went wrong.
    pub(crate) failures: Vec<String>,
}

/// A suite that was not run, and its tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) suite: String,
    pub(crate) tests: Vec<String>,
}

/// Everything that ran and did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) results: Vec<SuiteResult>,
    /// For want of root.
    pub(crate) left_out: Vec<LeftOut>,
}

impl Summary {
    /// Adds what came out of other suites.
    pub(crate) fn append(&mut self, other: Self) {
        self.results.extend(other.results);
        self.left_out.extend(other.left_out);
    }

    pub(crate) fn passed(&self) -> usize {
        self.results.iter().map(|result| result.passed).sum()
    }

    pub(crate) fn failed(&self) -> usize {
        self.results.iter().map(|result| result.failed).sum()
    }

    /// Ignored tests, and those left out.
    pub(crate) fn skipped(&self) -> usize {
        let ignored: usize = self.results.iter().map(|result| result.skipped).sum();
        ignored
            + self
                .left_out
                .iter()
                .map(|left_out| left_out.tests.len())
                .sum::<usize>()
    }

    /// `N passed, N failed`, which other programs read.
    pub(crate) fn last_line(&self) -> String {
        let line = format!("{} passed, {} failed", self.passed(), self.failed());
        match self.skipped() {
            0 => line,
            skipped => format!("{line}, {skipped} skipped"),
        }
    }

    /// The table of suites that ran a test, what failed, what was left out, and the last line.
    pub(crate) fn text(&self) -> String {
        let rows: Vec<_> = self
            .results
            .iter()
            .filter(|result| result.passed + result.failed + result.skipped > 0)
            .collect();
        let width = rows
            .iter()
            .map(|result| result.suite.len())
            .max()
            .unwrap_or(0)
            .max("suite".len());
        let mut text = format!("{:width$}  passed  failed  skipped      time\n", "suite");
        for SuiteResult {
            suite,
            passed,
            failed,
            skipped,
            time,
            ..
        } in rows
        {
            let time = time.as_secs_f64();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{suite:width$}  {passed:6}  {failed:6}  {skipped:7}  {time:6.1} s"
            );
        }
        let failures: Vec<_> = self
            .results
            .iter()
            .flat_map(|result| {
                result
                    .failures
                    .iter()
                    .map(|name| format!("  {}: {name}\n", result.suite))
            })
            .collect();
        if !failures.is_empty() {
            let _ = write!(text, "\nfailed:\n{}", failures.concat());
        }
        if !self.left_out.is_empty() {
            text.push_str("\nleft out, because they need root:\n");
        }
        for LeftOut { suite, tests } in &self.left_out {
            let _ = writeln!(text, "  {suite}: {}", tests.join(", "));
        }
        let _ = write!(text, "\n{}", self.last_line());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(suite: &str, passed: usize, failures: &[&str]) -> SuiteResult {
        SuiteResult {
            suite: suite.to_owned(),
            passed,
            failed: failures.len(),
            skipped: 0,
            time: Duration::from_millis(1234),
            failures: failures.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn the_last_line_counts_everything_and_names_skipped_only_if_there_are_any() {
        let mut summary = Summary {
            results: vec![result("a", 3, &[]), result("b", 2, &["x"])],
            ..Summary::default()
        };
        assert_eq!(summary.last_line(), "5 passed, 1 failed");
        summary.results[0].skipped = 1;
        summary.left_out.push(LeftOut {
            suite: "c".to_owned(),
            tests: vec!["y".to_owned(), "z".to_owned()],
        });
        assert_eq!(summary.last_line(), "5 passed, 1 failed, 3 skipped");
        assert_eq!(
            summary.text().lines().last(),
            Some("5 passed, 1 failed, 3 skipped")
        );
    }

    #[test]
    fn what_failed_and_what_was_left_out_is_named() {
        let summary = Summary {
            results: vec![
                result("mesh-agent (library)", 1, &["joins::twice"]),
                result("empty", 0, &[]),
            ],
            left_out: vec![LeftOut {
                suite: "mesh-runtime/tests/kernel_routes".to_owned(),
                tests: vec!["flush".to_owned()],
            }],
        };
        assert_eq!(
            summary.text(),
            "suite                 passed  failed  skipped      time\n\
             mesh-agent (library)       1       1        0     1.2 s\n\
             \n\
             failed:\n  mesh-agent (library): joins::twice\n\
             \n\
             left out, because they need root:\n  mesh-runtime/tests/kernel_routes: flush\n\
             \n\
             1 passed, 1 failed, 1 skipped"
        );
    }
}
