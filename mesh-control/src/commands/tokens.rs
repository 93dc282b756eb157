//! `token`: what lets hosts join.

use std::time::Duration;

use clap::{Args, Subcommand};
use mesh_rest::join_token::{CreateToken, CreatedToken, TokenList};
use mesh_rest::security::Security;
use serde_json::json;

use super::output::print_line;
use super::table::{self, Table, ago};
use super::{secure, segment};
use crate::admin::Admin;
use crate::duration_text;
use crate::registry::unix_seconds;

/// `token`.
#[derive(Debug, Clone, Subcommand)]
pub enum Token {
    /// Make one: prints it, on one line. A node joins by it with: quilt-mesh-agent --join TOKEN --control-plane https://…
    Create(CreateTokenArgs),
    /// Show those there are
    List,
    /// End one; nodes that joined by it stay
    Revoke {
        /// Its id
        id: String,
    },
}

/// `token create`.
#[derive(Debug, Clone, Args)]
pub struct CreateTokenArgs {
    /// How many hosts may join by it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub uses: u32,
    /// How long it holds: 30m, 1h or 48h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration_text::parse)]
    pub ttl: Duration,
    /// The node that it is for, by its hostname or id: whoever brings it is that node, and the key it had before is worth
    /// nothing any more. A name that no node has makes a new node of that name
    #[arg(long, value_name = "NAME|ID")]
    pub node: Option<String>,
    /// Also where it is the first credential, and nodes that are up without a certificate would be shut out by it
    #[arg(long)]
    pub force: bool,
}

impl Token {
    pub(super) async fn run(self, admin: &Admin) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => {
                let before: Security = admin.get("/api/security").await?;
                let node = create.node.clone();
                let create = CreateToken {
                    uses: Some(create.uses),
                    // At least one: less would be none.
                    ttl_seconds: Some(create.ttl.as_secs().max(1)),
                    node: create.node,
                    force: create.force,
                };
                let created: CreatedToken = admin.post("/api/tokens", &json!(create)).await?;
                print_line(&created.token)?;
                if let (Some(name), None) = (node, created.node_id) {
                    eprintln!(
                        "no node is called {name:?}: whoever brings this token is a new node of that name"
                    );
                }
                secure::say_effect(&before);
                Ok(())
            }
            Self::List => {
                let list: TokenList = admin.get("/api/tokens").await?;
                let now = unix_seconds();
                let mut table = Table::new(["ID", "USES", "STATE", "NODE", "MADE", "BY"]);
                for token in list.tokens {
                    let state = match token {
                        _ if token.revoked_at.is_some() => "revoked".to_owned(),
                        _ if token.uses_left == 0 => "used up".to_owned(),
                        _ if token.expires_at <= now => "ended".to_owned(),
                        _ if token.worthless => "worthless: another authority signs".to_owned(),
                        _ => format!("for {}", table::span(token.expires_at - now)),
                    };
                    table.row([
                        token.id,
                        format!(
                            "{} of {}",
                            token.uses - token.uses_left.min(token.uses),
                            token.uses
                        ),
                        state,
                        token.node.unwrap_or_default(),
                        ago(now, token.created_at),
                        token.created_by,
                    ]);
                }
                table.print()?;
                Ok(())
            }
            Self::Revoke { id } => {
                let path = format!("/api/tokens/{}/revoke", segment(&id)?);
                admin.post_nothing(&path).await
            }
        }
    }
}
