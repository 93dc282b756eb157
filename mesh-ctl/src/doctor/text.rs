//! As a person reads it.

use super::Diagnosis;
use crate::{findings, output::printable};

/// The findings, the gravest first, and then a line for each part of the host.
pub(super) fn text(diagnosis: &Diagnosis, now: u64) -> String {
    let mut lines = Vec::new();
    if !diagnosis.findings.is_empty() {
        lines.push(findings::text(&diagnosis.findings, now));
        lines.push(String::new());
    }
    for area in &diagnosis.areas {
        let said = match area.looked {
            true => printable(&area.said),
            false => format!("not looked at: {}", printable(&area.said)),
        };
        lines.push(format!("{:<16} {said}", area.name));
    }
    lines.push(format!(
        "{:<16} {}",
        "Findings",
        findings::count(&diagnosis.findings)
    ));
    lines.join("\n")
}
