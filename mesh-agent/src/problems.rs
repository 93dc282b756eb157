//! What is wrong with this agent at the moment, as the tasks find it.
//!
//! One board for all tasks. Who owns a condition raises it where it is found and clears it where it is over; a kind is on
//! the board at most once, however many things have it. What is there is told on the agent's socket, and to the control
//! plane with heartbeats.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use mesh_problems::{Finding, Kind, Problem, Standing};

/// So many of the things that have a problem are named with it.
const EXAMPLES: usize = 3;

/// The longest that is told of what was observed, in characters: errors may repeat what came over the network.
const LONGEST: usize = 1000;

/// The board. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    board: Arc<Mutex<Board>>,
}

impl Problems {
    /// There is such a problem, with what was observed. One that is there already keeps the time since when it is.
    pub fn raise(&self, kind: &'static Kind, observed: impl Into<String>) {
        self.raise_problem(Problem::new(kind, observed));
    }

    /// The same, with what to do in place of what its kind says.
    pub fn raise_problem(&self, mut problem: Problem) {
        // It is one line for whoever reads it, also where it repeats what came over the network.
        problem.observed = problem.observed.replace(char::is_control, " ");
        if let Some((end, _)) = problem.observed.char_indices().nth(LONGEST) {
            problem.observed.truncate(end);
            problem.observed.push('…');
        }
        self.lock().raise(problem, now());
    }

    /// There is none any more.
    pub fn clear(&self, kind: &'static Kind) {
        self.lock().clear(kind, now());
    }

    /// There is such a problem if these things have it, and none otherwise.
    pub fn set<T: Display>(&self, kind: &'static Kind, having_it: impl IntoIterator<Item = T>) {
        match several(having_it) {
            Some(observed) => self.raise(kind, observed),
            None => self.clear(kind),
        }
    }

    /// Those that are there, the gravest first, and of these the oldest.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.lock().standing.findings()
    }

    /// Which there are.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static Kind> {
        let board = self.lock();
        board.standing.problems().map(|it| it.kind).collect()
    }

    /// Whether there is such a problem.
    #[must_use]
    pub fn has(&self, kind: &'static Kind) -> bool {
        self.lock().problems.contains_key(kind.code)
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // Nobody panics while holding it.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is there, and since when.
#[derive(Debug, Default)]
struct Board {
    /// By code.
    problems: BTreeMap<&'static str, Problem>,
    standing: Standing,
}

impl Board {
    fn raise(&mut self, problem: Problem, now: u64) {
        let code = problem.kind.code;
        if self.problems.get(code) != Some(&problem) {
            self.problems.insert(code, problem);
            self.note(now);
        }
    }

    fn clear(&mut self, kind: &'static Kind, now: u64) {
        if self.problems.remove(kind.code).is_some() {
            self.note(now);
        }
    }

    fn note(&mut self, now: u64) {
        let problems = self.problems.values().cloned().collect();
        self.standing.note(problems, now);
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// How many there are, and the first of them; none if there are none.
fn several<T: Display>(things: impl IntoIterator<Item = T>) -> Option<String> {
    let mut things = things.into_iter();
    let examples: Vec<_> = things.by_ref().take(EXAMPLES).collect();
    let examples: Vec<String> = examples.iter().map(ToString::to_string).collect();
    let more = things.count();
    let named = examples.join("; ");
    match (examples.len(), more) {
        (0, _) => None,
        (1, 0) => Some(named),
        (count, 0) => Some(format!("{count}: {named}")),
        (count, more) => Some(format!("{}: {named}; …", count + more)),
    }
}

/// These in one list: the gravest first, of these the oldest, and no more than `most`.
#[must_use]
pub fn together(mut findings: Vec<Finding>, others: Vec<Finding>, most: usize) -> Vec<Finding> {
    findings.extend(others);
    findings.sort_by(|a, b| {
        let rank = |it: &Finding| (Reverse(it.severity), it.since);
        rank(a).cmp(&rank(b)).then_with(|| a.code.cmp(&b.code))
    });
    findings.truncate(most);
    findings
}

#[cfg(test)]
mod tests {
    use mesh_problems::catalog::agent::{
        CLOCKS_DIFFER, NO_AGENT_SOCKET, PEERS_REJECTED, RUNTIME_LOST,
    };
    use proptest::prelude::*;

    use super::*;

    fn codes(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|it| it.code.as_str()).collect()
    }

    #[test]
    fn a_kind_is_there_once_since_it_was_raised_first_until_it_is_cleared() {
        let mut board = Board::default();
        board.raise(Problem::new(&RUNTIME_LOST, "refused"), 100);
        board.raise(Problem::new(&RUNTIME_LOST, "timed out"), 200);
        let findings = board.standing.findings();
        assert_eq!(codes(&findings), ["runtime-lost"]);
        assert_eq!(
            (findings[0].since, &*findings[0].observed),
            (100, "timed out")
        );
        board.clear(&CLOCKS_DIFFER, 250);
        assert_eq!(board.standing.findings(), findings);
        board.clear(&RUNTIME_LOST, 300);
        assert_eq!(board.standing.findings(), []);
        board.raise(Problem::new(&RUNTIME_LOST, "refused"), 400);
        assert_eq!(board.standing.findings()[0].since, 400);
    }

    #[test]
    fn what_several_have_is_one_problem_with_their_number_and_the_first_of_them() {
        let problems = Problems::default();
        let observed = || problems.findings().first().map(|it| it.observed.clone());
        for (count, expected) in [
            (1, "peer 0"),
            (2, "2: peer 0; peer 1"),
            (3, "3: peer 0; peer 1; peer 2"),
            (70_000, "70000: peer 0; peer 1; peer 2; …"),
        ] {
            let peers = (0..count).map(|it| format!("peer {it}"));
            problems.set(&PEERS_REJECTED, peers);
            assert_eq!(observed().as_deref(), Some(expected));
        }
        problems.set(&PEERS_REJECTED, [""; 0]);
        assert_eq!(observed(), None);
    }

    #[test]
    fn clones_are_one_board_and_its_own_remedy_goes_before_the_kinds() {
        let problems = Problems::default();
        let problem = Problem::new(&RUNTIME_LOST, "gone").remedied_by("start it");
        problems.clone().raise_problem(problem);
        assert!(problems.has(&RUNTIME_LOST) && !problems.has(&CLOCKS_DIFFER));
        assert_eq!(problems.findings()[0].remedy, "start it");
    }

    #[test]
    fn what_was_observed_is_one_line_and_cut_between_characters() {
        let problems = Problems::default();
        problems.raise(&RUNTIME_LOST, "a\nb\u{1b}[31m");
        assert_eq!(problems.findings()[0].observed, "a b [31m");
        problems.raise(&RUNTIME_LOST, "ü".repeat(100_000));
        let observed = &problems.findings()[0].observed;
        assert_eq!(observed.chars().count(), LONGEST + 1);
    }

    #[test]
    fn the_gravest_of_both_lists_come_first_and_the_oldest_of_these() {
        let of = |kind, since| Finding::of(&Problem::new(kind, "it"), since);
        let ours = vec![of(&NO_AGENT_SOCKET, 1), of(&RUNTIME_LOST, 7)];
        let theirs = vec![of(&PEERS_REJECTED, 5), of(&CLOCKS_DIFFER, 2)];
        let all = together(ours.clone(), theirs.clone(), 64);
        let expected = [
            "peers-rejected",
            "runtime-lost",
            "clocks-differ",
            "no-agent-socket",
        ];
        assert_eq!(codes(&all), expected);
        assert_eq!(codes(&together(ours, theirs, 3)), expected[..3]);
    }

    proptest! {
        #[test]
        fn what_is_on_the_board_is_what_was_raised_last_and_not_cleared_since(
            steps in proptest::collection::vec((0..4usize, any::<Option<u8>>()), 0..40),
        ) {
            let kinds = [&RUNTIME_LOST, &CLOCKS_DIFFER, &PEERS_REJECTED, &NO_AGENT_SOCKET];
            let mut board = Board::default();
            let mut expected = BTreeMap::new();
            for (now, (kind, observed)) in (0..).zip(steps) {
                let kind = kinds[kind];
                match observed {
                    Some(observed) => {
                        board.raise(Problem::new(kind, observed.to_string()), now);
                        let since = expected.get(kind.code).map_or(now, |(_, since)| *since);
                        expected.insert(kind.code, (observed.to_string(), since));
                    }
                    None => {
                        board.clear(kind, now);
                        expected.remove(kind.code);
                    }
                }
                let there: BTreeMap<_, _> = board.standing.findings().into_iter()
                    .map(|it| (it.code, (it.observed, it.since))).collect();
                let wanted: BTreeMap<_, _> = expected.iter()
                    .map(|(code, it)| ((*code).to_owned(), it.clone())).collect();
                prop_assert_eq!(there, wanted);
            }
        }
    }
}
