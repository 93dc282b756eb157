//! How far a cluster is secured, and the way from one stage to the next.

use std::sync::atomic::Ordering;

use mesh_rest::security::{ChangeStage, Security, Stage};
use tracing::warn;

use super::audit::Doer;
use super::refusal::CredentialError;
use crate::access::why_insecure;
use crate::registry::Registry;
use crate::store::{CredentialChange, WithoutJoining};

/// Names that are shown of those without credentials.
const MOST_SHOWN: usize = 100;

/// Names that a refusal says.
const MOST_NAMED: usize = 5;

/// Whether a cluster may go from one stage to another while nodes that are up would be shut out by it.
fn check(from: Stage, to: Stage, shut_out: &[&str]) -> Result<(), String> {
    match (from, to) {
        (from, to) if from == to => Ok(()),
        (_, Stage::Secured) if !shut_out.is_empty() => Err(format!(
            "{} up without a certificate, and would be shut out: let each join first \
             (quilt-mesh-control token create, and the agent's --join), or force it (--force): {}",
            nodes_are(shut_out.len()),
            named(shut_out)
        )),
        _ => Ok(()),
    }
}

/// Whether the way to a secured cluster may begin: one that is secured would be opened by it, to whoever reaches its port.
/// While nobody has credentials nothing is secured yet.
fn check_moving(from: Stage, to: Stage, had_credentials: bool) -> Result<(), String> {
    match (from, to) {
        (Stage::Secured, Stage::Moving) if had_credentials => Err(
            "this cluster is secured already; quilt-mesh-control security shows it; quilt-mesh-control secure --undo opens it"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// Whether the first credential may be made in a cluster that has none: from then on nobody is let in without, so that
/// nodes which are up and have none would be shut out in one moment.
fn check_first(stage: Stage, had_credentials: bool, shut_out: &[&str]) -> Result<(), String> {
    if stage != Stage::Secured || had_credentials || shut_out.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} up without a certificate, and would be shut out by the first credential of this cluster: {}. Have them let in \
         until each has joined (quilt-mesh-control secure, and secure --finish after the last), or go on regardless (--force)",
        nodes_are(shut_out.len()),
        named(shut_out)
    ))
}

/// Those of the nodes without credentials that are up.
fn up(without: &[(String, bool)]) -> Vec<&str> {
    let up = without.iter().filter(|(_, up)| *up);
    up.map(|(name, _)| name.as_str()).collect()
}

fn nodes_are(count: usize) -> String {
    match count {
        1 => "1 node is".to_owned(),
        _ => format!("{count} nodes are"),
    }
}

fn named(names: &[&str]) -> String {
    let shown = names[..names.len().min(MOST_NAMED)].join(", ");
    match names.len() > MOST_NAMED {
        true => format!("{shown}, …"),
        false => shown,
    }
}

impl Registry {
    /// Refuses to make the first credential of a cluster whose nodes would be shut out by it.
    pub(super) async fn check_first(
        &self,
        change: &mut CredentialChange,
        force: bool,
    ) -> Result<(), CredentialError> {
        let had_credentials = self.credentials.any();
        if force || had_credentials {
            return Ok(());
        }
        let without = change.nodes_without().await?;
        check_first(self.credentials.stage(), had_credentials, &up(&without))
            .map_err(CredentialError::NotNow)
    }

    /// Lets everybody in over plain HTTP, wherever they are, as long as the cluster has no credentials (`--insecure`).
    pub fn let_everybody_in(&self) {
        self.insecure.store(true, Ordering::Relaxed);
    }

    /// Whether it was started so.
    #[must_use]
    pub fn lets_everybody_in(&self) -> bool {
        self.insecure.load(Ordering::Relaxed)
    }

    /// Why somebody is let in without credentials; `None`: nobody is, but for a process of this host as long as the
    /// cluster has none.
    #[must_use]
    pub fn insecure(&self) -> Option<String> {
        let why = why_insecure(self.credentials.stage(), self.lets_everybody_in());
        why.map(str::to_owned)
    }

    /// How far the cluster is secured. `insecure` is why somebody is let in without credentials.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Store`].
    pub async fn security(&self, insecure: Option<String>) -> Result<Security, CredentialError> {
        // Without the lock of changes: whoever looks does not wait for who changes, nor the other way round.
        let WithoutJoining { without, credited } = self.store.without_joining().await?;
        let credited_count = u32::try_from(credited.len()).unwrap_or(u32::MAX);
        let credited = credited
            .into_iter()
            .map(|(node_id, hostname)| match hostname {
                Some(hostname) => format!("{hostname} ({node_id})"),
                None => node_id,
            });
        let count = u32::try_from(without.len()).unwrap_or(u32::MAX);
        let up: Vec<String> = up(&without).into_iter().map(str::to_owned).collect();
        let names = without.into_iter().map(|(name, _)| name);
        let has_credentials = self.credentials.any();
        let mesh_id = self.credentials.trust().map(|it| it.mesh().to_string());
        let state = self.credentials.state();
        let with = state.nodes.values().filter(|node| !node.revoked).count();
        Ok(Security {
            stage: state.stage,
            has_credentials,
            insecure,
            mesh_id,
            nodes_with_credentials: u32::try_from(with).unwrap_or(u32::MAX),
            nodes_without_credentials: names.take(MOST_SHOWN).collect(),
            nodes_without_credentials_count: count,
            nodes_by_certificate_alone: credited.take(MOST_SHOWN).collect(),
            nodes_by_certificate_alone_count: credited_count,
            nodes_up_without_credentials_count: u32::try_from(up.len()).unwrap_or(u32::MAX),
            nodes_up_without_credentials: up.into_iter().take(MOST_SHOWN).collect(),
        })
    }

    /// Goes on to another stage.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn change_stage(
        &self,
        change_to: &ChangeStage,
        doer: &Doer,
    ) -> Result<(), CredentialError> {
        if change_to.stage != Stage::Open {
            // Without one that signs, nobody could be moved.
            self.signer()?;
        }
        if change_to.stage == Stage::Secured
            && let Some(why) = self.store.unverified()
            && !self.lets_everybody_in()
        {
            // It would not start again.
            return Err(CredentialError::NotNow(why));
        }
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        let without = change.nodes_without().await?;
        let up = up(&without);
        let from = self.credentials.stage();
        if let Err(why) = check_moving(from, change_to.stage, self.credentials.any()) {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(why));
        }
        if let Err(why) = check(from, change_to.stage, &up)
            && !change_to.force
        {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(why));
        }
        change.set_stage(change_to.stage).await?;
        let subject = format!("{} to {}", from.as_str(), change_to.stage.as_str());
        change.keep_audit(&doer.did("stage", &subject)).await?;
        self.finish_credentials(change).await?;
        warn!(name: "cluster-secured-another-way-than",
            from = from.as_str(),
            to = change_to.stage.as_str(),
            by = doer.who,
            "the cluster is secured in another way than before"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_credential_shuts_out_nobody_who_is_up() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let why = check_first(Stage::Secured, false, &names).unwrap_err();
        assert!(why.contains("6 nodes are up"), "{why}");
        assert!(why.contains("a, b, c, d, e, …"), "{why}");
        assert!(why.contains("quilt-mesh-control secure"), "{why}");
        assert_eq!(check_first(Stage::Secured, false, &[]), Ok(()));
        // Those are shut out already, and these go on as before.
        assert_eq!(check_first(Stage::Secured, true, &names), Ok(()));
        for stage in [Stage::Open, Stage::Moving] {
            assert_eq!(check_first(stage, false, &names), Ok(()));
        }
    }

    #[test]
    fn a_secured_cluster_is_opened_by_whoever_says_so_alone() {
        let why = check_moving(Stage::Secured, Stage::Moving, true).unwrap_err();
        assert!(why.contains("secured already"), "{why}");
        // The gentle way of one that has nodes and no credentials.
        assert_eq!(check_moving(Stage::Secured, Stage::Moving, false), Ok(()));
        assert_eq!(check_moving(Stage::Secured, Stage::Open, true), Ok(()));
        for from in [Stage::Open, Stage::Moving] {
            assert_eq!(check_moving(from, Stage::Moving, true), Ok(()));
        }
    }

    #[test]
    fn nobody_who_is_up_is_shut_out_by_mistake() {
        for from in [Stage::Open, Stage::Moving] {
            let why = check(from, Stage::Secured, &["alpha"]).unwrap_err();
            assert!(why.contains("alpha"), "{why}");
            assert_eq!(check(from, Stage::Secured, &[]), Ok(()));
            assert_eq!(check(from, Stage::Moving, &["alpha"]), Ok(()));
        }
        // A new cluster that was opened by hand.
        assert_eq!(check(Stage::Secured, Stage::Open, &["alpha"]), Ok(()));
        assert_eq!(check(Stage::Secured, Stage::Secured, &["alpha"]), Ok(()));
    }
}
