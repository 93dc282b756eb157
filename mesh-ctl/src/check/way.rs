//! What came of asking along one way says of each thing that was tried. Pure.

use mesh_problems::catalog::path::{
    FAST_PATH_SILENT, KERNEL_PATH_SILENT, NO_PROBE_ENDPOINT, NO_SUCH_ENDPOINT, OUTER_FRAGMENTS,
    PATH_LOSSY, PATH_MTU_SMALL, PATH_NOT_FAST, PEER_WITHOUT_PROBES,
};
use mesh_rest::check::{WayChecked, WayFinding};
use serde::Serialize;

/// What is tried of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Test {
    /// The UDP port of VXLAN, from host to host.
    Vxlan,
    /// As containers send: by the fast path, where there is one.
    Containers,
    /// By the kernel path.
    Kernel,
    /// The largest packets that containers send.
    Mtu,
    /// The node itself: that it answers at all.
    Node,
}

impl Test {
    /// As people read it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Containers => "containers",
            Self::Kernel => "kernel",
            Self::Mtu => "mtu",
            Self::Node => "node",
        }
    }
}

/// What came of it, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Ok,
    Warning,
    /// It was not tried, or nobody tells.
    Unknown,
    Failed,
}

impl Outcome {
    /// As people read it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) test: Test,
    /// Names of nodes; `to` is empty where it is about one node alone.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) result: Outcome,
    /// The codes of what was found.
    pub(crate) codes: Vec<String>,
    pub(crate) detail: String,
    /// Whether it follows from another row, which says why.
    #[serde(skip)]
    pub(crate) follows: bool,
}

/// Which test a finding is about.
fn test_of(code: &str) -> Test {
    let is = |kinds: &[&mesh_problems::Kind]| kinds.iter().any(|kind| kind.code == code);
    if is(&[&KERNEL_PATH_SILENT]) {
        Test::Kernel
    } else if is(&[&PATH_MTU_SMALL, &OUTER_FRAGMENTS]) {
        Test::Mtu
    } else if is(&[
        &FAST_PATH_SILENT,
        &NO_SUCH_ENDPOINT,
        &PEER_WITHOUT_PROBES,
        &NO_PROBE_ENDPOINT,
        &PATH_NOT_FAST,
        &PATH_LOSSY,
    ]) {
        Test::Containers
    } else {
        // That nothing comes through at all, and what is not known here.
        Test::Vxlan
    }
}

/// What a way says of each test.
pub(crate) fn rows(from: &str, to: &str, way: &WayChecked) -> Vec<Row> {
    let row = |test, result, codes, detail: String| Row {
        test,
        from: from.to_owned(),
        to: to.to_owned(),
        result,
        codes,
        detail,
        follows: false,
    };
    if let Some(error) = &way.error {
        return vec![row(
            Test::Vxlan,
            Outcome::Unknown,
            Vec::new(),
            error.clone(),
        )];
    }
    let of = |test| -> Vec<&WayFinding> {
        let findings = way.findings.iter();
        findings.filter(|it| test_of(&it.code) == test).collect()
    };
    let through = judged(&of(Test::Vxlan));
    // Nothing comes through: the others have nothing of their own to tell.
    let blocked = through.0 == Outcome::Failed;
    let time = |micros: u32| format!("{:.2} ms", f64::from(micros) / 1e3);
    let mut rows = Vec::new();
    for test in [Test::Vxlan, Test::Containers, Test::Kernel, Test::Mtu] {
        let findings = of(test);
        let (mut result, codes, mut detail) = judged(&findings);
        let seen = match test {
            Test::Vxlan => way
                .underlay_us
                .map(|us| format!("the host answers in {}", time(us))),
            Test::Containers => way.containers_us.map(|us| match &way.carried_by {
                Some(path) => format!("{} by the {path} path", time(us)),
                None => time(us),
            }),
            Test::Kernel => way.kernel_us.map(time),
            Test::Mtu => way.largest.map(|bytes| format!("{bytes} bytes pass")),
            Test::Node => None,
        };
        let answered = seen.is_some();
        if detail.is_empty() {
            detail = seen.unwrap_or_default();
        }
        if result == Outcome::Ok && !answered && test != Test::Vxlan {
            let (unanswered, why) = unanswered(test, blocked, way);
            result = unanswered;
            if detail.is_empty() || blocked {
                detail = why.to_owned();
            }
        }
        rows.push(Row {
            follows: blocked && test != Test::Vxlan && codes.is_empty(),
            ..row(test, result, codes, detail)
        });
    }
    rows
}

/// What it means that nothing was found that is wrong, and nothing was answered either.
fn unanswered(test: Test, blocked: bool, way: &WayChecked) -> (Outcome, &'static str) {
    let found = |kind: &mesh_problems::Kind| way.findings.iter().any(|it| it.code == kind.code);
    // What is switched off can be: it does not make the whole check one that cannot tell.
    let no_endpoint = found(&PEER_WITHOUT_PROBES) || found(&NO_PROBE_ENDPOINT);
    match test {
        Test::Mtu if blocked => (Outcome::Unknown, "nothing comes through"),
        _ if blocked => (Outcome::Failed, "nothing comes through"),
        // Or it would have been found to be silent.
        Test::Kernel if found(&PEER_WITHOUT_PROBES) => (Outcome::Ok, "the bridge there answers"),
        _ if no_endpoint => (Outcome::Warning, "not tried: no endpoint for probes"),
        _ => (Outcome::Unknown, "not tried"),
    }
}

/// The worst of findings, their codes, and what was seen.
fn judged(findings: &[&WayFinding]) -> (Outcome, Vec<String>, String) {
    let outcome = |finding: &&WayFinding| match &*finding.severity {
        "error" => Outcome::Failed,
        "warning" => Outcome::Warning,
        _ => Outcome::Ok,
    };
    let worst = findings.iter().map(outcome).max().unwrap_or(Outcome::Ok);
    let codes = findings.iter().map(|it| it.code.clone()).collect();
    let seen: Vec<&str> = findings.iter().map(|it| &*it.observed).collect();
    (worst, codes, seen.join("; "))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn fine(third: u8) -> WayChecked {
        WayChecked {
            subnet: format!("10.42.{third}.0/24").parse().unwrap(),
            error: None,
            containers_us: Some(210),
            carried_by: Some("fast".to_owned()),
            kernel_us: Some(300),
            underlay_us: Some(90),
            largest: Some(1450),
            heard_ms: Some(10),
            findings: Vec::new(),
        }
    }

    pub(crate) fn finding(code: &str, severity: &str) -> WayFinding {
        WayFinding {
            code: code.to_owned(),
            severity: severity.to_owned(),
            observed: format!("{code} was seen"),
        }
    }

    pub(crate) fn swallowed(third: u8) -> WayChecked {
        WayChecked {
            containers_us: None,
            carried_by: None,
            kernel_us: None,
            largest: None,
            heard_ms: Some(90_000),
            findings: vec![finding("vxlan-not-through", "error")],
            ..fine(third)
        }
    }

    fn told(way: &WayChecked) -> Vec<(Test, Outcome, String)> {
        let rows = rows("a", "b", way).into_iter();
        rows.map(|row| (row.test, row.result, row.detail)).collect()
    }

    #[test]
    fn a_way_that_is_fine_passes_every_test_with_what_was_measured() {
        let expected = [
            (
                Test::Vxlan,
                Outcome::Ok,
                "the host answers in 0.09 ms".to_owned(),
            ),
            (
                Test::Containers,
                Outcome::Ok,
                "0.21 ms by the fast path".to_owned(),
            ),
            (Test::Kernel, Outcome::Ok, "0.30 ms".to_owned()),
            (Test::Mtu, Outcome::Ok, "1450 bytes pass".to_owned()),
        ];
        assert_eq!(told(&fine(2)), expected);
    }

    #[test]
    fn where_nothing_comes_through_both_paths_fail_for_that_reason_and_sizes_are_not_known() {
        let rows = rows("a", "b", &swallowed(2));
        let results: Vec<_> = rows.iter().map(|row| row.result).collect();
        let [failed, unknown] = [Outcome::Failed, Outcome::Unknown];
        assert_eq!(results, [failed, failed, failed, unknown]);
        assert_eq!(rows[0].codes, ["vxlan-not-through"]);
        assert_eq!(rows[0].detail, "vxlan-not-through was seen");
        assert_eq!(rows[1].detail, "nothing comes through");
    }

    #[test]
    fn large_packets_that_vanish_fail_that_test_alone() {
        let way = WayChecked {
            largest: Some(1350),
            findings: vec![finding("path-mtu-small", "error")],
            ..fine(2)
        };
        let failed: Vec<Test> = rows("a", "b", &way)
            .into_iter()
            .filter(|row| row.result != Outcome::Ok)
            .map(|row| row.test)
            .collect();
        assert_eq!(failed, [Test::Mtu]);
    }

    #[test]
    fn a_peer_without_an_endpoint_for_probes_leaves_untried_what_needs_one_and_fails_nothing() {
        let way = WayChecked {
            containers_us: None,
            kernel_us: None,
            largest: None,
            findings: vec![finding("peer-without-probes", "notice")],
            ..fine(2)
        };
        let told = told(&way);
        let results: Vec<Outcome> = told.iter().map(|it| it.1).collect();
        let [ok, warning] = [Outcome::Ok, Outcome::Warning];
        assert_eq!(results, [ok, warning, ok, warning]);
        assert_eq!(told[1].2, "peer-without-probes was seen");
        assert_eq!(told[2].2, "the bridge there answers");
        // Nothing found, and nothing answered: it is not known why.
        let way = WayChecked {
            findings: Vec::new(),
            ..way
        };
        assert_eq!(rows("a", "b", &way)[1].result, Outcome::Unknown);
    }

    #[test]
    fn every_kind_that_a_way_can_have_belongs_to_a_test() {
        for kind in mesh_problems::catalog::path::ALL {
            let way = WayChecked {
                findings: vec![finding(kind.code, kind.severity.as_str())],
                ..fine(2)
            };
            let rows = rows("a", "b", &way);
            let with_code = rows
                .iter()
                .filter(|row| row.codes == [kind.code.to_owned()]);
            assert_eq!(with_code.count(), 1, "{}", kind.code);
        }
    }

    #[test]
    fn a_way_that_was_not_asked_is_not_known() {
        let way = WayChecked {
            error: Some("it was not asked in time".to_owned()),
            ..swallowed(2)
        };
        let expected = (
            Test::Vxlan,
            Outcome::Unknown,
            "it was not asked in time".to_owned(),
        );
        assert_eq!(told(&way), [expected]);
    }
}
