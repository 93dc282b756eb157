//! What the command line can do beside serving. Each asks the control plane that serves on this host, over its admin
//! socket, but for what has to be done before it starts.

use anyhow::bail;
use clap::Subcommand;

use crate::admin::Admin;
use crate::options::Options;

mod audit;
mod authority;
mod nodes;
mod operators;
mod output;
mod secure;
mod table;
mod tokens;

use audit::Audit;
use authority::Ca;
use nodes::Node;
use operators::Operator;
use secure::Secure;
use tokens::Token;

/// See the module.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Join tokens: what lets hosts join
    #[command(subcommand)]
    Token(Token),
    /// Operators: who may look, and who may change
    #[command(subcommand)]
    Operator(Operator),
    /// Nodes: what they are known by, and those that shall do nothing any more
    #[command(subcommand)]
    Node(Node),
    /// The mesh's certificate authority
    #[command(subcommand)]
    Ca(Ca),
    /// Ask everybody for credentials, step by step, in a cluster that was there before there were any
    ///
    /// The first step: tokens are made, nodes join one by one, those that have not yet go on as before, and nothing else is
    /// let in without credentials. The last (--finish): nobody is.
    Secure(Secure),
    /// How far the cluster is secured
    Security,
    /// Who did what, from where
    Audit(Audit),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Why not, in words for the operator.
    pub async fn run(self, options: &Options) -> anyhow::Result<()> {
        let admin = Admin::at(options.admin_socket());
        match self {
            Self::Token(token) => token.run(&admin).await,
            Self::Operator(operator) => operator.run(&admin).await,
            Self::Node(node) => node.run(&admin).await,
            Self::Ca(ca) => ca.run(&admin, &options.state_dir()).await,
            Self::Secure(secure) => secure.run(&admin).await,
            Self::Security => secure::show(&admin.get("/api/security").await?),
            Self::Audit(audit) => audit.run(&admin).await,
        }
    }
}

/// An id, as it stands in a path.
fn segment(id: &str) -> anyhow::Result<&str> {
    if !mesh_credentials::name::is_id(id) {
        bail!("{id:?} is no id: letters, digits and - alone");
    }
    Ok(id)
}
