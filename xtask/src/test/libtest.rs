//! Reads what Rust's test programs print.
//!
//! Their machine-readable output is unstable, so this is the text of the stable channel. What a test's own code
//! prints may stand between those lines, or look like them: a run counts only from `running N tests` to the
//! result that adds up to N.

use std::collections::BTreeSet;

/// What one program, or cargo's run of several (documentation tests), reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Marked `#[ignore]`.
    pub(crate) ignored: usize,
    /// Names of those that failed.
    pub(crate) failures: BTreeSet<String>,
    /// How many runs began and came to a result.
    pub(crate) finished_runs: usize,
    /// A run began and came to no result: the program died in a test.
    pub(crate) unfinished: bool,
}

/// Takes the output line by line.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    report: Report,
    /// Number of tests of the run that is under way.
    run: Option<usize>,
    /// Names of this run's failures, from its own lines.
    failures: BTreeSet<String>,
    /// The list after the last line `failures:`; what failing tests printed may hold such a line too.
    list: Option<BTreeSet<String>>,
    /// A test whose name was printed and whose outcome was not: with one thread it comes after what it prints.
    pending: Option<String>,
}

impl Parser {
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let Some(tests) = self.run else {
            self.run = parse_running(line);
            return;
        };
        if let Some(result) = parse_result(line)
            && result.total() == tests
        {
            return self.end_run(result);
        }
        if line == "failures:" {
            self.list = Some(BTreeSet::new());
        } else if let (Some(list), Some(name)) = (&mut self.list, line.strip_prefix("    ")) {
            list.insert(name.trim_start().to_owned());
        } else if let Some(rest) = line.strip_prefix("test ") {
            // The last one: a documentation test's name may hold anything a path may.
            let Some((name, outcome)) = rest.rsplit_once(" ... ") else {
                self.pending = rest.strip_suffix(" ...").map(str::to_owned);
                return;
            };
            self.pending = None;
            if outcome.ends_with("FAILED") {
                self.failures.insert(name.to_owned());
            } else if !outcome.ends_with("ok") && !outcome.starts_with("ignored") {
                self.pending = Some(name.to_owned());
            }
        } else if let Some(name) = &self.pending
            && line.ends_with("FAILED")
        {
            self.failures.insert(name.clone());
            self.pending = None;
        }
    }

    fn end_run(&mut self, result: RunResult) {
        self.report.passed += result.passed;
        self.report.failed += result.failed;
        self.report.ignored += result.ignored;
        self.report.finished_runs += 1;
        let lines = std::mem::take(&mut self.failures);
        // The list at the end is exact; the lines can be torn by what the test's child processes print.
        let names = self
            .list
            .take()
            .filter(|list| list.len() == result.failed)
            .unwrap_or(lines);
        self.report
            .failures
            .extend(names.into_iter().map(without_note));
        self.run = None;
        self.pending = None;
    }

    /// The report, with what is known of a run that was cut off.
    pub(crate) fn finish(mut self) -> Report {
        if self.run.is_some() {
            self.report.unfinished = true;
            // The test in which it died printed its name if it ran alone.
            self.failures.extend(self.pending);
            self.report.failed += self.failures.len();
            self.report
                .failures
                .extend(self.failures.into_iter().map(without_note));
        }
        self.report
    }
}

/// `name - should panic` is how the lines print what the list calls `name`.
fn without_note(name: String) -> String {
    name.strip_suffix(" - should panic")
        .map_or(name.clone(), str::to_owned)
}

/// The number in `running 12 tests`.
fn parse_running(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("running ")?;
    rest.strip_suffix(" tests")
        .or_else(|| rest.strip_suffix(" test"))?
        .parse()
        .ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RunResult {
    passed: usize,
    failed: usize,
    ignored: usize,
    measured: usize,
}

impl RunResult {
    /// Tests that were chosen; those filtered out are not among `running N tests`.
    fn total(self) -> usize {
        self.passed + self.failed + self.ignored + self.measured
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.05s`
fn parse_result(line: &str) -> Option<RunResult> {
    let (verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    if !matches!(verdict, "ok" | "FAILED") {
        return None;
    }
    let mut counts = counts.split("; ");
    let mut count = |name: &str| counts.next()?.strip_suffix(name)?.trim_end().parse().ok();
    Some(RunResult {
        passed: count("passed")?,
        failed: count("failed")?,
        ignored: count("ignored")?,
        measured: count("measured")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(output: &str) -> Report {
        let mut parser = Parser::default();
        output.lines().for_each(|line| parser.line(line));
        parser.finish()
    }

    fn names(report: &Report) -> Vec<&str> {
        report.failures.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_run_that_passed_is_counted() {
        let report = report(include_str!("samples/passed.txt"));
        assert_eq!((report.passed, report.failed, report.ignored), (2, 0, 1));
        assert_eq!((report.finished_runs, report.unfinished), (1, false));
    }

    #[test]
    fn failures_are_named_once_whatever_they_printed() {
        let report = report(include_str!("samples/failed.txt"));
        assert_eq!((report.passed, report.failed, report.ignored), (3, 4, 1));
        assert_eq!(names(&report), FAILURES);
        assert!(!report.unfinished);
    }

    #[test]
    fn with_one_thread_and_uncaptured_output_the_same_failures_are_found() {
        let report = report(include_str!("samples/one_thread_nocapture.txt"));
        assert_eq!((report.passed, report.failed, report.ignored), (3, 4, 1));
        assert_eq!(names(&report), FAILURES);
    }

    /// What fails in the program behind these samples.
    const FAILURES: [&str; 4] = [
        "fails_plainly",
        "prints_a_report_of_its_own",
        "prints_before_it_fails",
        "should_panic_and_does_not",
    ];

    #[test]
    fn a_program_that_died_in_a_test_is_unfinished() {
        let report = report(include_str!("samples/aborted.txt"));
        assert!(report.unfinished);
        assert_eq!(report.finished_runs, 0);
        assert_eq!(names(&report), ["dies"]);
    }

    #[test]
    fn documentation_tests_of_several_crates_add_up() {
        let report = report(include_str!("samples/doc.txt"));
        assert_eq!((report.passed, report.failed, report.ignored), (3, 1, 1));
        assert_eq!(names(&report), ["src/lib.rs - broken (line 11)"]);
        assert_eq!(report.finished_runs, 2);
    }

    #[test]
    fn a_program_without_tests_has_a_finished_run_of_none() {
        let report = report(
            "\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            report,
            Report {
                finished_runs: 1,
                ..Report::default()
            }
        );
    }
}
