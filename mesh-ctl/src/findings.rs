//! Findings as a person reads them.

use anstyle::Style;
use mesh_problems::{Finding, Severity};

use crate::output::{BOLD, age, printable, style_of, styled};

/// Whether something does not work.
pub(crate) fn is_wrong(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

/// The style of the gravest.
pub(crate) fn style_of_worst(findings: &[Finding]) -> Style {
    let worst = findings.iter().map(|finding| finding.severity).max();
    style_of(worst.unwrap_or(Severity::Error))
}

/// A block of lines for each, the gravest first.
pub(crate) fn text(findings: &[Finding], now: u64) -> String {
    let blocks: Vec<String> = findings.iter().map(|finding| block(finding, now)).collect();
    blocks.join("\n")
}

fn block(finding: &Finding, now: u64) -> String {
    let severity = styled(style_of(finding.severity), finding.severity);
    let title = styled(BOLD, printable(&finding.title));
    // Of what is seen for the first time nobody knows since when it is there.
    let age = match finding.since {
        0 => String::new(),
        since => format!(", for {}", age(now.saturating_sub(since))),
    };
    let mut lines = vec![format!(
        "{severity}  {title} ({}){age}",
        printable(&finding.code)
    )];
    for (label, words) in [
        ("seen", &finding.observed),
        ("breaks", &finding.breaks),
        ("do", &finding.remedy),
    ] {
        if !words.is_empty() {
            lines.push(format!("  {label:<7} {}", printable(words)));
        }
    }
    lines.join("\n")
}

/// Them all in a few words: `1 error, 2 warnings`.
pub(crate) fn count(findings: &[Finding]) -> String {
    let counted = [Severity::Error, Severity::Warning, Severity::Notice].map(|severity| {
        let of_it = findings.iter().filter(|it| it.severity == severity);
        (severity, of_it.count())
    });
    let words: Vec<String> = counted
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(severity, count)| match count {
            1 => format!("1 {severity}"),
            _ => format!("{count} {severity}s"),
        })
        .collect();
    match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use mesh_problems::{
        Problem,
        catalog::dataplane::{FOREIGN_ROUTE, SMALL_MTU},
    };

    use super::*;

    fn findings() -> Vec<Finding> {
        [
            Problem::new(
                &FOREIGN_ROUTE,
                "the route to 10.42.2.0/24 belongs to somebody else",
            ),
            Problem::new(&SMALL_MTU, "1330"),
            Problem::new(&SMALL_MTU, "1300"),
        ]
        .iter()
        .map(|problem| Finding::of(problem, 1000))
        .collect()
    }

    #[test]
    fn a_finding_says_what_was_seen_what_it_breaks_and_what_to_do() {
        let text = text(&findings()[..1], 1120);
        let plain = anstream::adapter::strip_str(&text).to_string();
        let expected = "error  A route to a peer's subnet belongs to somebody else (foreign-route), for 2 min\n  \
                        seen    the route to 10.42.2.0/24 belongs to somebody else\n  \
                        breaks  it is left alone, and what is for the containers there goes where it leads\n  \
                        do      delete it (ip route delete SUBNET) if the peer shall be reached over the overlay";
        assert_eq!(plain, expected);
    }

    #[test]
    fn of_what_is_seen_for_the_first_time_no_age_is_told() {
        let finding = Finding::of(&Problem::new(&SMALL_MTU, "1330"), 0);
        let text = text(&[finding], 1120);
        let plain = anstream::adapter::strip_str(&text).to_string();
        let first = plain.lines().next().unwrap();
        assert_eq!(first, "warning  Containers get a small MTU (small-mtu)");
    }

    #[test]
    fn what_is_grave_is_counted_apart() {
        assert_eq!(count(&findings()), "1 error, 2 warnings");
        assert_eq!(count(&[]), "none");
        assert!(is_wrong(&findings()) && !is_wrong(&findings()[1..]));
    }
}
