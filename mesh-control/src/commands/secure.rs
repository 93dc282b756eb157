//! `secure` and `security`: how far the cluster is secured, and what changes for those without credentials.

use clap::Args;
use mesh_rest::security::{ChangeStage, Security, Stage};
use serde_json::json;

use mesh_admin::Door;
use mesh_admin::effect::{say, without};
use mesh_admin::output::print_line;

/// `secure`.
#[derive(Debug, Clone, Args)]
pub struct Secure {
    /// Let nobody in any more who has no credentials
    #[arg(long)]
    pub finish: bool,
    /// Go back: everybody is let in, as before there were credentials
    #[arg(long, conflicts_with = "finish")]
    pub undo: bool,
    /// Also while nodes that are up would be shut out
    #[arg(long, requires = "finish")]
    pub force: bool,
}

impl Secure {
    pub(super) async fn run(self, admin: &Door) -> anyhow::Result<()> {
        let stage = match (self.finish, self.undo) {
            (true, _) => Stage::Secured,
            (false, true) => Stage::Open,
            (false, false) => Stage::Moving,
        };
        let force = self.force;
        let change = json!(ChangeStage { stage, force });
        let before: Security = admin.get("/api/security").await?;
        admin.post_json("/api/security/stage", &change).await?;
        show(&admin.get("/api/security").await?)?;
        say(stage_effect(&before, stage));
        Ok(())
    }
}

/// How far it is, for people.
pub(super) fn show(security: &Security) -> anyhow::Result<()> {
    let stage = match security.stage {
        Stage::Open => "open: nobody needs credentials",
        Stage::Moving => "moving: nodes from before need no credentials yet",
        Stage::Secured if !security.has_credentials => {
            "secured, and nobody has credentials yet: processes of this host may do everything until somebody has"
        }
        Stage::Secured => "secured: nobody is let in without credentials",
    };
    print_line(stage)?;
    if let Some(why) = &security.insecure {
        print_line(&format!("insecure: {why}"))?;
    }
    let (with, without) = (
        security.nodes_with_credentials,
        security.nodes_without_credentials_count,
    );
    print_line(&format!(
        "nodes with a certificate: {with}, without: {without}"
    ))?;
    if without > 0 {
        print_line(&format!(
            "without: {}",
            security.nodes_without_credentials.join(", ")
        ))?;
    }
    let credited = security.nodes_by_certificate_alone_count;
    if credited > 0 {
        print_line(&format!(
            "known by their certificate alone, which this database had lost; revoke those that nobody knows: {credited}: {}",
            security.nodes_by_certificate_alone.join(", ")
        ))?;
    }
    Ok(())
}

/// What another stage changes for nodes without credentials that are up.
fn stage_effect(before: &Security, to: Stage) -> Option<String> {
    if before.stage == to {
        return None;
    }
    let who = without(before);
    Some(match (to, who) {
        (Stage::Open, _) => {
            "from now on whoever reaches the port may do everything but make, show and revoke credentials".to_owned()
        }
        (Stage::Moving, who) => {
            let from = match before.stage {
                Stage::Secured => {
                    "from now on plain HTTP is taken from everywhere, and whoever reaches the port may read. "
                }
                Stage::Open | Stage::Moving => "",
            };
            let who = who.unwrap_or_else(|| "no node".to_owned());
            format!(
                "{from}New nodes need a token, and whoever changes what operators change. Goes on without credentials until \
                 it joins: {who}"
            )
        }
        (Stage::Secured, Some(who)) => {
            format!("shut out until they join (their agent's --join): {who}")
        }
        (Stage::Secured, None) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(stage: Stage, has_credentials: bool, names: &[&str]) -> Security {
        let up: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let count = u32::try_from(up.len()).unwrap();
        Security {
            stage,
            has_credentials,
            insecure: None,
            mesh_id: None,
            nodes_with_credentials: 0,
            nodes_without_credentials: up.clone(),
            nodes_without_credentials_count: count,
            nodes_by_certificate_alone: Vec::new(),
            nodes_by_certificate_alone_count: 0,
            nodes_up_without_credentials: up,
            nodes_up_without_credentials_count: count,
        }
    }

    #[test]
    fn who_changes_the_stage_is_told_what_that_opens_and_shuts() {
        let said = |from, to, names: &[&str]| stage_effect(&before(from, false, names), to);
        let forced = said(Stage::Moving, Stage::Secured, &["a", "b"]).unwrap();
        assert!(
            forced.contains("shut out") && forced.contains("a, b"),
            "{forced}"
        );
        let opened = said(Stage::Secured, Stage::Moving, &["a"]).unwrap();
        assert!(
            opened.contains("from everywhere") && opened.contains(": a"),
            "{opened}"
        );
        let moved = said(Stage::Open, Stage::Moving, &["a"]).unwrap();
        assert!(!moved.contains("from everywhere"), "{moved}");
        assert_eq!(said(Stage::Open, Stage::Open, &["a"]), None);
    }
}
