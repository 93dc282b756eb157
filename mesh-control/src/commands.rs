//! What the command line can do beside serving. Each asks the control plane that serves on this host, over its admin
//! socket, but for what has to be done before it starts.

use clap::Subcommand;
use mesh_admin::Door;
use mesh_admin::nodes::Node;
use mesh_admin::tokens::Token;

use crate::options::Options;

mod audit;
mod authority;
mod operators;
mod secure;

use audit::Audit;
use authority::Ca;
use operators::Operator;
use secure::Secure;

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
        let door = Door::at(options.admin_socket());
        match self {
            Self::Token(token) => token.run(&door).await,
            Self::Operator(operator) => operator.run(&door).await,
            Self::Node(node) => node.run(&door, "quilt-mesh-control").await,
            Self::Ca(ca) => ca.run(&door, &options.state_dir()).await,
            Self::Secure(secure) => secure.run(&door).await,
            Self::Security => secure::show(&door.get("/api/security").await?),
            Self::Audit(audit) => audit.run(&door).await,
        }
    }
}
