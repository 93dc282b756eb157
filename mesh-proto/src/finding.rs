//! Findings on their way over gRPC.

use mesh_problems::{Finding, Severity};

use crate::mesh;

impl From<Finding> for mesh::Finding {
    fn from(finding: Finding) -> Self {
        Self {
            code: finding.code,
            severity: finding.severity.as_str().to_owned(),
            title: finding.title,
            observed: finding.observed,
            breaks: finding.breaks,
            remedy: finding.remedy,
            since: finding.since,
        }
    }
}

impl From<mesh::Finding> for Finding {
    fn from(told: mesh::Finding) -> Self {
        Self {
            code: told.code,
            severity: Severity::of_word(&told.severity),
            title: told.title,
            observed: told.observed,
            breaks: told.breaks,
            remedy: told.remedy,
            since: told.since,
        }
    }
}

impl mesh::GetStatusResponse {
    /// What is not as it should be, each in one line.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let findings = self.findings.iter().cloned();
        findings
            .map(|finding| Finding::from(finding).to_string())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use mesh_problems::{Problem, catalog::dataplane::FOREIGN_ROUTE};

    use super::*;

    #[test]
    fn a_finding_arrives_as_it_was_sent() {
        let finding = Finding::of(&Problem::new(&FOREIGN_ROUTE, "to 10.42.2.0/24"), 7);
        let sent = mesh::Finding::from(finding.clone());
        assert_eq!(Finding::from(sent), finding);
    }
}
