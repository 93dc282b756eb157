//! What each daemon serves.

use crate::{Kind, Scrape};

metrics! {
    BUILD_INFO = Kind::Gauge, "quilt_mesh_build_info" [component, version],
        "Always 1: which daemon this is, by the name of its program, and of which version";
    PROBLEMS = Kind::Gauge, "quilt_mesh_problems" [code, severity],
        "How many problems of this code are there now; a code without a problem is left out (docs/PROBLEMS.md)";
}

/// How many problems of one code there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemCount {
    /// The code of their kind.
    pub code: &'static str,
    /// The word of its severity.
    pub severity: &'static str,
    /// How many there are.
    pub count: u64,
}

/// Begins a page with what each daemon serves.
#[must_use]
pub fn begin(component: &str, version: &str, problems: &[ProblemCount]) -> Scrape {
    let mut scrape = Scrape::default();
    scrape.set(&BUILD_INFO, &[component, version], 1);
    for problem in problems {
        scrape.set(&PROBLEMS, &[problem.code, problem.severity], problem.count);
    }
    scrape
}
