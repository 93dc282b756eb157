//! `operator`: who may look, and who may change.

use clap::{Subcommand, ValueEnum};
use mesh_rest::operator::{CreateOperator, CreatedOperator, OperatorList, Role};
use mesh_rest::security::Security;
use serde_json::json;

use super::table::{Table, ago};
use super::{secure, segment};
use crate::admin::Admin;
use crate::registry::unix_seconds;

/// `operator`.
#[derive(Debug, Clone, Subcommand)]
pub enum Operator {
    /// Make one: prints its token, on one line
    Create {
        /// Who it is
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "operate")]
        role: RoleArg,
        /// Also where it is the first credential, and nodes that are up without a certificate would be shut out by it
        #[arg(long)]
        force: bool,
    },
    /// Show those there are
    List,
    /// Let one do nothing any more
    Revoke {
        /// Its id
        id: String,
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
    pub(super) async fn run(self, admin: &Admin) -> anyhow::Result<()> {
        match self {
            Self::Create { name, role, force } => {
                let before: Security = admin.get("/api/security").await?;
                let role = match role {
                    RoleArg::Read => Role::Read,
                    RoleArg::Operate => Role::Operate,
                };
                let create = json!(CreateOperator { name, role, force });
                let created: CreatedOperator = admin.post("/api/operators", &create).await?;
                println!("{}", created.token);
                secure::say_effect(&before);
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
                table.print();
                Ok(())
            }
            Self::Revoke { id } => {
                let path = format!("/api/operators/{}/revoke", segment(&id)?);
                admin.post_nothing(&path).await
            }
        }
    }
}
