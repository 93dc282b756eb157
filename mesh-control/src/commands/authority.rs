//! `ca`: the mesh's certificate authority.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use mesh_credentials::authority::Authority;
use mesh_credentials::name::MeshId;
use mesh_credentials::{authority_file, secret_file};
use mesh_rest::join::{AuthorityKeys, AuthorityList};
use mesh_rest::security::{ChangeRotation, Rotated, Rotation};
use serde_json::json;

use super::table::{self, Table};
use crate::admin::Admin;
use crate::registry::unix_seconds;

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

impl Ca {
    pub(super) async fn run(self, admin: &Admin, file: &Path) -> anyhow::Result<()> {
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
