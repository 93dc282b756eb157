//! What is not as it should be: what the control plane sees itself, and what the nodes report.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::PoisonError;

use mesh_problems::Finding;
use mesh_rest::findings::{ClusterFindings, NodeFindings, NodeVersion};
use mesh_rest::heartbeat::DataPlane;
use mesh_rest::node_id::NodeId;

use crate::cluster::findings::{Seen, View, problems};
use crate::copy::list_text::Shown;
use crate::registry::{ChangeError, Registry, unix_seconds};
use crate::traffic::matrix::{Database as _, Place, Reported};

/// The most nodes whose findings are told in one answer.
const MOST_NODES: usize = 1000;

impl Registry {
    /// What is not as it should be, by now.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Store`].
    pub async fn findings(&self) -> Result<ClusterFindings<'static>, ChangeError> {
        let insecure = self.insecure();
        let subnets = self.free_subnets().await?;
        let shown = self.shown();
        let reports = self.latest_reports().await?;
        let mut told = self.told(&shown, reports).await?;
        let nodes = shown.iter().map(|shown| Seen {
            node: &shown.node,
            status: shown.status,
            last_heartbeat: shown.last_heartbeat,
            copy_held_off_at: shown.copy_held_off_at,
            version: told
                .get(&shown.node.node_id)
                .map(|(_, told)| told.version.as_str()),
        });
        let found = problems(&View {
            nodes: nodes.collect(),
            insecure: insecure.as_deref(),
            subnets,
        });
        let versions = shown.iter().filter_map(|shown| {
            let node_id = &shown.node.node_id;
            let (_, told) = told.get(node_id)?;
            Some(NodeVersion {
                node_id: Cow::Owned(node_id.clone()),
                version: Cow::Owned(told.version.clone()),
            })
        });
        let versions = versions.collect();
        let mut reporting = Vec::new();
        for shown in &shown {
            let reported = told.remove(&shown.node.node_id);
            let Some((report_age_ms, told)) =
                reported.filter(|(_, told)| !told.findings.is_empty())
            else {
                continue;
            };
            reporting.push(NodeFindings {
                node_id: Cow::Owned(shown.node.node_id.clone()),
                hostname: Cow::Owned(shown.node.hostname.clone()),
                report_age_ms,
                findings: told.findings,
            });
        }
        let nodes_left_out = reporting.len().saturating_sub(MOST_NODES);
        reporting.truncate(MOST_NODES);
        Ok(ClusterFindings {
            findings: self.dated(found),
            nodes: reporting,
            nodes_left_out,
            versions,
        })
    }

    /// Since when each is there: where that is not known, since it was seen first here.
    fn dated(&self, found: Vec<(mesh_problems::Problem, Option<i64>)>) -> Vec<Finding> {
        let now = u64::try_from(unix_seconds()).unwrap_or_default();
        let since: HashMap<&str, i64> = found
            .iter()
            .filter_map(|(problem, since)| Some((problem.kind.code, (*since)?)))
            .collect();
        let problems = found.iter().map(|(problem, _)| problem.clone()).collect();
        let mut findings = {
            let mut standing = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
            standing.note(problems, now);
            standing.findings()
        };
        for finding in &mut findings {
            let known = since.get(finding.code.as_str());
            let known = known.and_then(|since| u64::try_from(*since).ok());
            finding.since = known.unwrap_or(finding.since);
        }
        findings
    }

    /// How many subnets there are, and how many are free.
    async fn free_subnets(&self) -> Result<(u32, u32), ChangeError> {
        let stored = self.subnets().await;
        let stored = stored.map_err(|error| ChangeError::Store(error.into()))?;
        let leased = stored.leases.iter().filter(|lease| lease.node.is_some());
        let leased = u32::try_from(leased.count()).unwrap_or(u32::MAX);
        let reserved: u32 = stored.reservations.iter().map(|it| it.range.count()).sum();
        let total = self.plan().count();
        Ok((total, total.saturating_sub(leased).saturating_sub(reserved)))
    }

    /// What each of these told of its data plane last, and how long ago in milliseconds.
    async fn told(
        &self,
        shown: &[Shown],
        mut reports: HashMap<NodeId, Reported>,
    ) -> Result<HashMap<NodeId, (u64, DataPlane)>, ChangeError> {
        let mut told = HashMap::new();
        let mut stored = Vec::new();
        for node in shown {
            let node_id = &node.node.node_id;
            match reports.remove(node_id) {
                Some(Reported {
                    age_ms,
                    at: Place::Memory(latest),
                    ..
                }) => {
                    let data_plane = latest.report.data_plane.clone();
                    told.extend(data_plane.map(|it| (node_id.clone(), (age_ms, it))));
                }
                Some(Reported { age_ms, .. }) => stored.push((node_id, age_ms)),
                None => {}
            }
        }
        let ids: Vec<&NodeId> = stored.iter().map(|(node_id, _)| *node_id).collect();
        if !ids.is_empty() {
            let read = self.data_planes(&ids).await;
            let mut read = read.map_err(|error| ChangeError::Store(error.into()))?;
            for (node_id, age_ms) in stored {
                let data_plane = read.remove(node_id);
                told.extend(data_plane.map(|it| (node_id.clone(), (age_ms, it))));
            }
        }
        Ok(told)
    }
}
