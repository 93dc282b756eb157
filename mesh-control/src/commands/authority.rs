//! `ca`: the mesh's certificate authority.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use mesh_credentials::authority::Authority;
use mesh_credentials::authority_file::{self, AuthorityFileError, FiledAuthority};
use mesh_credentials::authority_state::AuthorityState;
use mesh_credentials::name::MeshId;
use mesh_credentials::secret_file;
use mesh_rest::join::{AuthorityKeys, AuthorityList, ImportAuthorities};
use mesh_rest::security::{ChangeRotation, Rotated, Rotation};
use serde_json::json;

use crate::credentials::key_file;
use crate::registry::unix_seconds;
use mesh_admin::Door;
use mesh_admin::output::{print_all, print_line};
use mesh_admin::table::{self, Table};

/// `ca`.
#[derive(Debug, Clone, Subcommand)]
pub enum Ca {
    /// Make the authority of a new mesh, before any control plane of it has started
    Init,
    /// Print the authority with its key, for another replica or a backup: keep it secret
    Export {
        /// To this file, which must not exist yet and which its owner alone may read, rather than printed
        #[arg(long)]
        file: Option<PathBuf>,
    },
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
    pub(super) async fn run(self, admin: &Door, directory: &Path) -> anyhow::Result<()> {
        match self {
            Self::Init => {
                let file = &key_file::take_up(directory);
                let authority = Authority::make(MeshId::make(), unix_seconds())?;
                let key = authority.trusted().key();
                if !authority_file::create(
                    file,
                    &[FiledAuthority::new(authority, AuthorityState::Signs)],
                )? {
                    bail!(
                        "{} is there already: the mesh has an authority",
                        file.display()
                    );
                }
                print_line(&key.to_string())?;
                eprintln!(
                    "made {}; keep a copy where nobody else can read it",
                    file.display()
                );
                Ok(())
            }
            Self::Export { file: to } => export(admin, directory, to.as_deref()).await,
            Self::Import { file: from } => import(admin, directory, &from).await,
            Self::Show { pem } => {
                let list: AuthorityList = admin.get("/api/ca").await?;
                if list.authorities.is_empty() {
                    bail!("the control plane trusts no authority");
                }
                if pem {
                    let certificates = list.authorities.into_iter().map(|it| it.certificate);
                    return print_all(&certificates.collect::<String>());
                }
                let now = unix_seconds();
                print_line(&format!("mesh {}", list.mesh_id))?;
                let mut table = Table::new(["KEY", "SIGNS", "HOLDS FOR"]);
                for authority in list.authorities {
                    table.row([
                        authority.key,
                        if authority.signs { "yes" } else { "no" }.to_owned(),
                        table::span(authority.not_after - now),
                    ]);
                }
                table.print()?;
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
                    (Rotation::Prepare, Some(key)) => print_line(&format!(
                        "{key} is trusted from now on. Give its key to the other replicas (ca export here, ca import there), \
                         and activate it when all nodes have heard of it, which takes them up to four heartbeats"
                    ))?,
                    (Rotation::Activate, Some(key)) => print_line(&format!(
                        "{key} signs from now on. Finish when all nodes have a certificate of it, which takes them up to four \
                         heartbeats; join tokens that were made before are worth nothing any more"
                    ))?,
                    _ => print_line("the authority before is trusted no longer")?,
                }
                Ok(())
            }
        }
    }
}

async fn export(admin: &Door, directory: &Path, to: Option<&Path>) -> anyhow::Result<()> {
    // Also when nobody serves: it is a backup.
    let text = match admin.is_there() {
        true => admin.ask_for::<AuthorityKeys>("/api/ca/export").await?.keys,
        false => {
            let file = key_file::take_up(directory);
            let authorities = authority_file::read(&file)?;
            if authorities.is_empty() {
                bail!(
                    "there is no {}, and nothing to export; see --db-path and --state-dir",
                    file.display()
                );
            }
            authority_file::text(&authorities)
        }
    };
    if text.is_empty() {
        bail!(
            "the control plane has no key of an authority, and nothing to export; see quilt-mesh-control ca import"
        );
    }
    let Some(to) = to else {
        return print_all(&text);
    };
    if !secret_file::create(to, &text)? {
        bail!("{} is there already, and stays as it is", to.display());
    }
    Ok(())
}

async fn import(admin: &Door, directory: &Path, from: &Path) -> anyhow::Result<()> {
    let text = match from.as_os_str() == "-" {
        true => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            text
        }
        false => std::fs::read_to_string(from)
            .with_context(|| format!("cannot read {}", from.display()))?,
    };
    let given = authority_file::parse(&text)
        .with_context(|| format!("{} cannot be used", from.display()))?;
    if given.is_empty() {
        bail!("{} holds no authority", from.display());
    }
    if admin.is_there() {
        let keys = json!(ImportAuthorities { keys: text });
        return Ok(admin.post_json("/api/ca/import", &keys).await?);
    }
    let file = key_file::take_up(directory);
    if matches!(
        authority_file::read(&file),
        Err(AuthorityFileError::NoKey { .. })
    ) {
        let kept = key_file::set_aside(&file, unix_seconds())
            .with_context(|| format!("cannot rename {}", file.display()))?;
        if let Some(kept) = kept {
            eprintln!(
                "{} held no key; it is {} now",
                file.display(),
                kept.display()
            );
        }
    }
    if !authority_file::create(&file, &given)? {
        bail!(
            "{} is there already; move it away if it is not that of this mesh",
            file.display()
        );
    }
    Ok(())
}
