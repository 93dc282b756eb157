//! How far a cluster is secured, and the way from one stage to the next.

use std::sync::atomic::Ordering;

use mesh_rest::security::{ChangeStage, Security, Stage};
use tracing::warn;

use super::audit::Doer;
use super::refusal::CredentialError;
use crate::access::why_insecure;
use crate::registry::Registry;

/// Names that are shown of those without credentials.
const MOST_SHOWN: usize = 100;

/// Whether a cluster may go from one stage to another while nodes that are up would be shut out by it.
fn check(from: Stage, to: Stage, shut_out: &[&str]) -> Result<(), String> {
    match (from, to) {
        (from, to) if from == to => Ok(()),
        (_, Stage::Secured) if !shut_out.is_empty() => Err(format!(
            "{} {} up without a certificate, and would be shut out: let each join first \
             (quilt-mesh-control token create, and the agent's --join), or force it: {}{}",
            shut_out.len(),
            match shut_out.len() {
                1 => "node is",
                _ => "nodes are",
            },
            shut_out[..shut_out.len().min(10)].join(", "),
            if shut_out.len() > 10 { ", …" } else { "" },
        )),
        _ => Ok(()),
    }
}

impl Registry {
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
        let mut change = self.store.begin_credentials().await?;
        let without = change.nodes_without().await?;
        let credited = change.credited().await?;
        change.roll_back().await?;
        let credited_count = u32::try_from(credited.len()).unwrap_or(u32::MAX);
        let credited = credited
            .into_iter()
            .map(|(node_id, hostname)| match hostname {
                Some(hostname) => format!("{hostname} ({node_id})"),
                None => node_id,
            });
        let count = u32::try_from(without.len()).unwrap_or(u32::MAX);
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
        let up: Vec<&str> = without
            .iter()
            .filter(|(_, up)| *up)
            .map(|(name, _)| name.as_str())
            .collect();
        let from = self.credentials.stage();
        if let Err(why) = check(from, change_to.stage, &up)
            && !change_to.force
        {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(why));
        }
        change.set_stage(change_to.stage).await?;
        let subject = format!("{} to {}", from.as_str(), change_to.stage.as_str());
        change.keep_audit(&doer.did("stage", &subject)).await?;
        change.finish().await?;
        self.read_credentials().await?;
        warn!(
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
