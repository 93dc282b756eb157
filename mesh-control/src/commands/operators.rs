//! `operator`: who may look, and who may change.

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use mesh_rest::operator::{CreateOperator, CreatedOperator, OperatorEntry, OperatorList, Role};
use mesh_rest::security::Security;
use serde_json::json;

use crate::registry::unix_seconds;
use mesh_admin::Door;
use mesh_admin::output::print_line;
use mesh_admin::table::{Table, ago};
use mesh_admin::{effect, segment};

/// `operator`.
#[derive(Debug, Clone, Subcommand)]
pub enum Operator {
    /// Make one: prints its token, on one line
    Create {
        /// Who it is
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "read")]
        role: RoleArg,
        /// Also where it is the first credential, and nodes that are up without a certificate would be shut out by it
        #[arg(long)]
        force: bool,
    },
    /// Show those there are
    List,
    /// Let one do nothing any more
    Revoke {
        /// The operator's name or id
        #[arg(value_name = "NAME|ID")]
        operator: String,
    },
}

/// [`Role`], as it is said.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleArg {
    /// Look
    Read,
    /// Look, and change what an operator changes
    Operate,
}

impl Operator {
    pub(super) async fn run(self, admin: &Door) -> anyhow::Result<()> {
        match self {
            Self::Create { name, role, force } => {
                let before: Security = admin.get("/api/security").await?;
                let role = match role {
                    RoleArg::Read => Role::Read,
                    RoleArg::Operate => Role::Operate,
                };
                let create = json!(CreateOperator { name, role, force });
                let created: CreatedOperator = admin.post("/api/operators", &create).await?;
                print_line(&created.token)?;
                effect::say_effect(&before);
                Ok(())
            }
            Self::List => {
                let list: OperatorList = admin.get("/api/operators").await?;
                let now = unix_seconds();
                let mut table = Table::new(["ID", "NAME", "ROLE", "MADE", "REVOKED"]);
                for operator in list.operators {
                    let revoked = operator.revoked_at.map(|at| ago(now, at));
                    table.row([
                        operator.id,
                        operator.name,
                        operator.role.as_str().to_owned(),
                        ago(now, operator.created_at),
                        revoked.unwrap_or_default(),
                    ]);
                }
                table.print()?;
                Ok(())
            }
            Self::Revoke { operator } => {
                let list: OperatorList = admin.get("/api/operators").await?;
                let found = find(&list, &operator)?;
                if found.revoked_at.is_some() {
                    eprintln!(
                        "the operator {} ({}) was revoked already",
                        found.name, found.id
                    );
                    return Ok(());
                }
                let path = format!("/api/operators/{}/revoke", segment(&found.id)?);
                Ok(admin.post_nothing(&path).await?)
            }
        }
    }
}

/// The operator with this id, or else the one with this name; of several, the one that was not revoked.
///
/// # Errors
///
/// There is none, or several have that name: which those are.
fn find<'a>(list: &'a OperatorList, wanted: &str) -> anyhow::Result<&'a OperatorEntry> {
    if let Some(operator) = list.operators.iter().find(|it| it.id == wanted) {
        return Ok(operator);
    }
    let named = || list.operators.iter().filter(|it| it.name == wanted);
    let holding: Vec<_> = named().filter(|it| it.revoked_at.is_none()).collect();
    match holding.as_slice() {
        [operator] => Ok(operator),
        [] => named().next().with_context(|| {
            format!("no operator is called {wanted:?}; see quilt-mesh-control operator list")
        }),
        several => {
            let ids: Vec<&str> = several.iter().map(|it| it.id.as_str()).collect();
            bail!(
                "{} operators are called {wanted:?}; say which by the id: {}",
                several.len(),
                ids.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_meant_before_a_name_and_who_holds_before_who_was_revoked() {
        let operator = |id: &str, name: &str, revoked_at| OperatorEntry {
            id: id.to_owned(),
            name: name.to_owned(),
            role: Role::Read,
            created_at: 0,
            revoked_at,
        };
        let operators = vec![
            operator("a1", "ada", Some(7)),
            operator("a2", "ada", None),
            operator("b1", "bob", None),
            operator("b2", "bob", None),
            operator("c1", "a1", None),
            operator("d1", "dan", Some(7)),
        ];
        let list = OperatorList { operators };
        let id = |wanted| find(&list, wanted).map(|it| it.id.as_str()).ok();
        assert_eq!(id("ada"), Some("a2"));
        assert_eq!(id("a1"), Some("a1"));
        assert_eq!(id("dan"), Some("d1"));
        assert_eq!(id("eve"), None);
        let why = find(&list, "bob").unwrap_err().to_string();
        assert!(why.contains("b1, b2"), "{why}");
    }
}
