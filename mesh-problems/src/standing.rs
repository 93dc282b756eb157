//! The problems that are there, and since when.

use crate::{Finding, Problem};

/// The problems that are there at the moment, each with the time since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    problems: Vec<(Problem, u64)>,
}

/// What has changed since the problems were noted before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that were not there before.
    pub new: Vec<Problem>,
    /// Those that are there no more.
    pub gone: Vec<Problem>,
}

impl Standing {
    /// Notes the problems that are there now, in Unix seconds, and says what has changed. One that is as it was keeps its
    /// time; so does one of which no more than the values have changed, if it is the only one of its kind before and now.
    pub fn note(&mut self, problems: Vec<Problem>, now: u64) -> Changes {
        let before = std::mem::take(&mut self.problems);
        let since = |problem: &Problem| {
            let same = before.iter().find(|(other, _)| other == problem);
            let only = || {
                let alone = only_of_kind(problem, &problems);
                let mut of_kind = before
                    .iter()
                    .filter(|(other, _)| other.kind.code == problem.kind.code);
                let first = of_kind.next().filter(|_| alone)?;
                of_kind.next().is_none().then_some(first)
            };
            same.or_else(only).map_or(now, |&(_, since)| since)
        };
        let times: Vec<u64> = problems.iter().map(since).collect();
        let changes = Changes {
            new: problems
                .iter()
                .filter(|problem| before.iter().all(|(other, _)| other != *problem))
                .cloned()
                .collect(),
            gone: before
                .into_iter()
                .map(|(problem, _)| problem)
                .filter(|problem| !problems.contains(problem))
                .collect(),
        };
        self.problems = problems.into_iter().zip(times).collect();
        changes
    }

    /// Those that are there, the gravest first, and of these the oldest.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<_> = self
            .problems
            .iter()
            .map(|(problem, since)| Finding::of(problem, *since))
            .collect();
        findings
            .sort_by(|a, b| (b.severity, a.since, &a.code).cmp(&(a.severity, b.since, &b.code)));
        findings
    }

    /// Those that are there.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().map(|(problem, _)| problem)
    }
}

fn only_of_kind(problem: &Problem, problems: &[Problem]) -> bool {
    let code = problem.kind.code;
    problems.iter().filter(|it| it.kind.code == code).count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::dataplane::{FOREIGN_ROUTE, SMALL_MTU};

    #[test]
    fn a_problem_keeps_its_time_while_it_is_there_and_is_new_and_gone_once() {
        let mut standing = Standing::default();
        let route = Problem::new(&FOREIGN_ROUTE, "to 10.42.2.0/24");
        let changes = standing.note(vec![route.clone()], 100);
        assert_eq!((changes.new.len(), changes.gone.len()), (1, 0));
        let other = Problem::new(&FOREIGN_ROUTE, "to 10.42.3.0/24");
        let both = vec![route.clone(), other.clone()];
        let changes = standing.note(both.clone(), 200);
        assert!(changes.new.iter().eq([&other]));
        assert_eq!(standing.note(both, 300), Changes::default());
        let times: Vec<u64> = standing.findings().iter().map(|it| it.since).collect();
        assert_eq!(times, [100, 200]);
        let changes = standing.note(vec![other], 400);
        assert!(changes.gone.iter().eq([&route]));
        // It was another one that was there all the time.
        standing.note(Vec::new(), 500);
        standing.note(vec![route], 600);
        assert_eq!(standing.findings()[0].since, 600);
    }

    #[test]
    fn one_whose_values_change_is_there_since_it_was_first_seen() {
        let mut standing = Standing::default();
        standing.note(vec![Problem::new(&SMALL_MTU, "1330")], 100);
        let changes = standing.note(vec![Problem::new(&SMALL_MTU, "1300")], 200);
        assert_eq!((changes.new.len(), changes.gone.len()), (1, 1));
        assert_eq!(standing.findings()[0].since, 100);
    }

    #[test]
    fn the_gravest_come_first() {
        let mut standing = Standing::default();
        let problems = vec![
            Problem::new(&SMALL_MTU, "1330"),
            Problem::new(&FOREIGN_ROUTE, "to 10.42.3.0/24"),
        ];
        standing.note(problems, 100);
        let findings = standing.findings();
        assert!(findings[0].severity > findings[1].severity, "{findings:?}");
    }
}
