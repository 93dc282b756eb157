//! `audit`: who did what, from where.

use clap::Args;
use mesh_rest::audit::AuditList;

use super::table::{self, Table};
use crate::admin::Admin;

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

impl Audit {
    pub(super) async fn run(self, admin: &Admin) -> anyhow::Result<()> {
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
