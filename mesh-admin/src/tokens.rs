//! `token`: what lets hosts join.

use std::time::Duration;

use clap::{Args, Subcommand};
use mesh_rest::join_token::{CreateToken, CreatedToken, TokenList};
use mesh_rest::security::Security;

use crate::Door;
use crate::duration_text;
use crate::output::{print_json, print_line};
use crate::table::{self, Table, ago};
use crate::unix_seconds;
use crate::{effect, segment};

/// `token`.
#[derive(Debug, Clone, Subcommand)]
pub enum Token {
    /// Make one: prints it, on one line. A node joins by it with: quilt-mesh-agent --join TOKEN --control-plane https://…
    Create(CreateTokenArgs),
    /// Show those there are
    List {
        /// Print a document for a machine
        #[arg(long)]
        json: bool,
    },
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
    /// Print a document for a machine
    #[arg(long)]
    pub json: bool,
}

impl Token {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Why not, in words for the operator.
    pub async fn run(self, door: &Door) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(door).await,
            Self::List { json } => {
                let list: TokenList = door.get("/api/tokens").await?;
                match json {
                    true => print_json(&list),
                    false => show(list),
                }
            }
            Self::Revoke { id } => {
                let path = format!("/api/tokens/{}/revoke", segment(&id)?);
                Ok(door.post_nothing(&path).await?)
            }
        }
    }
}

impl CreateTokenArgs {
    async fn run(self, door: &Door) -> anyhow::Result<()> {
        // Over REST nobody is asked how far the cluster is secured, which is an administrator's question. Whoever shows a
        // token there has credentials, and the first ones, whose effect there is something to say about, were made before.
        let before: Option<Security> = match door.is_admins() {
            true => Some(door.get("/api/security").await?),
            false => None,
        };
        let node = self.node.clone();
        let create = CreateToken {
            uses: Some(self.uses),
            // At least one: less would be none.
            ttl_seconds: Some(self.ttl.as_secs().max(1)),
            node: self.node,
            force: self.force,
        };
        let created: CreatedToken = door.post("/api/tokens", &create).await?;
        match self.json {
            true => print_json(&created)?,
            false => print_line(&created.token)?,
        }
        if let (Some(name), None) = (node, created.node_id) {
            eprintln!(
                "no node is called {name:?}: whoever brings this token is a new node of that name"
            );
        }
        if let Some(before) = before {
            effect::say_effect(&before);
        }
        Ok(())
    }
}

fn show(list: TokenList) -> anyhow::Result<()> {
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
    table.print()
}
