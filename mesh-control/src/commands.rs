//! What the command line can do beside serving. Each asks the control plane that serves on this host, over its admin
//! socket, but for what has to be done before it starts.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use mesh_credentials::authority::Authority;
use mesh_credentials::name::MeshId;
use mesh_credentials::{authority_file, secret_file};
use mesh_rest::audit::AuditList;
use mesh_rest::join::{AuthorityKeys, AuthorityList};
use mesh_rest::join_token::{CreateToken, CreatedToken, TokenList};
use mesh_rest::operator::{CreateOperator, CreatedOperator, OperatorList, Role};
use mesh_rest::security::{ChangeRotation, ChangeStage, Rotated, Rotation, Security, Stage};
use serde_json::json;

use crate::admin::Admin;
use crate::duration_text;
use crate::options::Options;
use crate::registry::unix_seconds;

mod table;

use table::{Table, ago};

/// See the module.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Join tokens: what lets hosts join
    #[command(subcommand)]
    Token(Token),
    /// Operators: who may look, and who may change
    #[command(subcommand)]
    Operator(Operator),
    /// Nodes that shall do nothing any more
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
    /// nothing any more
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
}

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

/// `node`.
#[derive(Debug, Clone, Subcommand)]
pub enum Node {
    /// Let a node do nothing any more; it comes back by a token that is made for it
    Revoke {
        /// Its id
        id: String,
    },
}

/// `ca`.
#[derive(Debug, Clone, Subcommand)]
pub enum Ca {
    /// Make the authority of a new mesh, before any control plane of it has started
    Init,
    /// Print the authority with its key, for another replica or a backup: keep it secret
    Export,
    /// Take the authority that another replica exported; from standard input, if the file is -
    Import {
        /// The file
        file: PathBuf,
    },
    /// Show the authorities that are trusted
    Show {
        /// Their certificates in PEM, for programs that check by them, as curl does with --cacert
        #[arg(long)]
        pem: bool,
    },
    /// Put another authority in the place of the one that signs: prepare, then activate, then finish
    Rotate {
        /// Which step
        #[arg(value_enum)]
        step: Step,
        /// Also while nodes are not ready for it, and would be shut out
        #[arg(long)]
        force: bool,
    },
}

/// [`Rotation`], as it is said.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Step {
    /// Make the next one, and have it trusted; export it then, and import it at the other replicas
    Prepare,
    /// Have it sign
    Activate,
    /// Trust the one before no longer
    Finish,
}

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

/// `audit`.
#[derive(Debug, Clone, Args)]
pub struct Audit {
    /// How many entries, the latest
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub most: u32,
    /// As JSON
    #[arg(long)]
    pub json: bool,
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
            Self::Node(Node::Revoke { id }) => {
                let path = format!("/api/nodes/{}/revoke", segment(&id)?);
                admin.post_nothing(&path).await
            }
            Self::Ca(ca) => ca.run(&admin, &options.authority_file()).await,
            Self::Secure(secure) => secure.run(&admin).await,
            Self::Security => {
                show_security(&admin.get("/api/security").await?);
                Ok(())
            }
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

impl Token {
    async fn run(self, admin: &Admin) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => {
                let create = CreateToken {
                    uses: Some(create.uses),
                    // At least one: less would be none.
                    ttl_seconds: Some(create.ttl.as_secs().max(1)),
                    node: create.node,
                };
                let created: CreatedToken = admin.post("/api/tokens", &json!(create)).await?;
                println!("{}", created.token);
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
                table.print();
                Ok(())
            }
            Self::Revoke { id } => {
                let path = format!("/api/tokens/{}/revoke", segment(&id)?);
                admin.post_nothing(&path).await
            }
        }
    }
}

impl Operator {
    async fn run(self, admin: &Admin) -> anyhow::Result<()> {
        match self {
            Self::Create { name, role } => {
                let role = match role {
                    RoleArg::Read => Role::Read,
                    RoleArg::Operate => Role::Operate,
                };
                let create = json!(CreateOperator { name, role });
                let created: CreatedOperator = admin.post("/api/operators", &create).await?;
                println!("{}", created.token);
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

impl Ca {
    async fn run(self, admin: &Admin, file: &Path) -> anyhow::Result<()> {
        match self {
            Self::Init => {
                let authority = Authority::make(MeshId::make(), unix_seconds())?;
                let key = authority.trusted().key();
                if !authority_file::create(file, &[authority])? {
                    bail!(
                        "{} is there already: the mesh has an authority",
                        file.display()
                    );
                }
                println!("{key}");
                eprintln!(
                    "made {}; keep a copy where nobody else can read it",
                    file.display()
                );
                Ok(())
            }
            Self::Export => {
                // Also when nobody serves: it is a backup.
                let text = match admin.is_there() {
                    true => admin.ask_for::<AuthorityKeys>("/api/ca/export").await?.keys,
                    false => secret_file::read(file)?
                        .with_context(|| format!("there is no {}", file.display()))?,
                };
                print!("{text}");
                Ok(())
            }
            Self::Import { file: from } => {
                let text = match from.as_os_str() == "-" {
                    true => {
                        let mut text = String::new();
                        std::io::stdin()
                            .read_to_string(&mut text)
                            .context("cannot read standard input")?;
                        text
                    }
                    false => std::fs::read_to_string(&from)
                        .with_context(|| format!("cannot read {}", from.display()))?,
                };
                let given = authority_file::parse(&text)
                    .with_context(|| format!("{} cannot be used", from.display()))?;
                if given.is_empty() {
                    bail!("{} holds no authority", from.display());
                }
                if admin.is_there() {
                    let keys = json!(AuthorityKeys { keys: text });
                    return admin.post_json("/api/ca/import", &keys).await;
                }
                if !authority_file::create(file, &given)? {
                    bail!(
                        "{} is there already; move it away if it is not that of this mesh",
                        file.display()
                    );
                }
                Ok(())
            }
            Self::Show { pem } => {
                let list: AuthorityList = admin.get("/api/ca").await?;
                if pem {
                    for authority in list.authorities {
                        print!("{}", authority.certificate);
                    }
                    return Ok(());
                }
                let now = unix_seconds();
                println!("mesh {}", list.mesh_id);
                let mut table = Table::new(["KEY", "SIGNS", "HOLDS FOR"]);
                for authority in list.authorities {
                    table.row([
                        authority.key,
                        if authority.signs { "yes" } else { "no" }.to_owned(),
                        table::span(authority.not_after - now),
                    ]);
                }
                table.print();
                Ok(())
            }
            Self::Rotate { step, force } => {
                let step = match step {
                    Step::Prepare => Rotation::Prepare,
                    Step::Activate => Rotation::Activate,
                    Step::Finish => Rotation::Finish,
                };
                let change = json!(ChangeRotation { step, force });
                let rotated: Rotated = admin.post("/api/ca/rotate", &change).await?;
                match (step, rotated.key) {
                    (Rotation::Prepare, Some(key)) => println!(
                        "{key} is trusted from now on. Give its key to the other replicas (ca export here, ca import there), \
                         and activate it when all nodes have heard of it, which takes them up to four heartbeats"
                    ),
                    (Rotation::Activate, Some(key)) => println!(
                        "{key} signs from now on. Finish when all nodes have a certificate of it, which takes them up to four \
                         heartbeats; join tokens that were made before are worth nothing any more"
                    ),
                    _ => println!("the authority before is trusted no longer"),
                }
                Ok(())
            }
        }
    }
}

impl Secure {
    async fn run(self, admin: &Admin) -> anyhow::Result<()> {
        let stage = match (self.finish, self.undo) {
            (true, _) => Stage::Secured,
            (false, true) => Stage::Open,
            (false, false) => Stage::Moving,
        };
        let force = self.force;
        let change = json!(ChangeStage { stage, force });
        admin.post_json("/api/security/stage", &change).await?;
        show_security(&admin.get("/api/security").await?);
        Ok(())
    }
}

fn show_security(security: &Security) {
    let stage = match security.stage {
        Stage::Open => "open: nobody needs credentials",
        Stage::Moving => "moving: nodes from before need no credentials yet",
        Stage::Secured if !security.has_credentials => {
            "secured, and nobody has credentials yet: processes of this host may do everything until somebody has"
        }
        Stage::Secured => "secured: nobody is let in without credentials",
    };
    println!("{stage}");
    if let Some(why) = &security.insecure {
        println!("insecure: {why}");
    }
    let (with, without) = (
        security.nodes_with_credentials,
        security.nodes_without_credentials_count,
    );
    println!("nodes with a certificate: {with}, without: {without}");
    if without > 0 {
        println!("without: {}", security.nodes_without_credentials.join(", "));
    }
    let credited = security.nodes_by_certificate_alone_count;
    if credited > 0 {
        println!(
            "known by their certificate alone, which this database had lost; revoke those that nobody knows: {credited}: {}",
            security.nodes_by_certificate_alone.join(", ")
        );
    }
}

impl Audit {
    async fn run(self, admin: &Admin) -> anyhow::Result<()> {
        let path = format!("/api/audit?most={}", self.most);
        let list: AuditList = admin.get(&path).await?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&list)?);
            return Ok(());
        }
        let mut table = Table::new(["WHEN", "WHO", "FROM", "WHAT", "ON", "OUTCOME", "TIMES"]);
        for entry in list.entries {
            table.row([
                table::moment(entry.at),
                entry.who,
                entry.source,
                entry.action,
                entry.subject,
                entry.outcome,
                entry.times.to_string(),
            ]);
        }
        table.print();
        Ok(())
    }
}
