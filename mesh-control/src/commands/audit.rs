//! `audit`: who did what, from where.

use std::collections::HashMap;

use clap::Args;
use mesh_rest::audit::AuditList;
use mesh_rest::node_credential::{NodeCredentialEntry, NodeCredentialList};

use mesh_admin::Door;
use mesh_admin::output::print_line;
use mesh_admin::table::{self, Table};

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
    pub(super) async fn run(self, admin: &Door) -> anyhow::Result<()> {
        let path = format!("/api/audit?most={}", self.most);
        let list: AuditList = admin.get(&path).await?;
        if self.json {
            print_line(&serde_json::to_string_pretty(&list)?)?;
            return Ok(());
        }
        // Without them ids say less, but enough.
        let nodes = admin.get::<NodeCredentialList>("/api/node-credentials");
        let names = Names::of(nodes.await.map(|list| list.nodes).unwrap_or_default());
        let mut table = Table::new(["WHEN", "WHO", "FROM", "WHAT", "ON", "OUTCOME", "TIMES"]);
        for entry in list.entries {
            table.row([
                table::moment(entry.at),
                names.in_words(&entry.who),
                entry.source,
                entry.action,
                names.in_words(&entry.subject),
                entry.outcome,
                entry.times.to_string(),
            ]);
        }
        table.print()?;
        Ok(())
    }
}

/// What nodes are called, by their ids.
#[derive(Debug)]
struct Names(HashMap<String, String>);

impl Names {
    fn of(nodes: Vec<NodeCredentialEntry>) -> Self {
        let named = |it: NodeCredentialEntry| Some((it.node_id.to_string(), it.hostname?));
        Self(nodes.into_iter().filter_map(named).collect())
    }

    /// Puts the name of a node beside its id, and both in the place of what its certificate says.
    fn in_words(&self, text: &str) -> String {
        let mut after_node = false;
        let words = text.split(' ').map(|word| {
            let in_certificate = word
                .strip_prefix("spiffe://")
                .and_then(|name| Some(name.split_once("/node/")?.1));
            let (id, before) = match in_certificate {
                Some(id) => (id, "node "),
                None => (word, ""),
            };
            let is_node = in_certificate.is_some() || after_node;
            after_node = word == "node";
            match self.0.get(id).filter(|_| is_node) {
                Some(name) => format!("{before}{name} ({id})"),
                None if in_certificate.is_some() && mesh_credentials::name::is_id(id) => {
                    format!("{before}{id}")
                }
                None => word.to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_with_its_name_beside_its_id() {
        let names = [("4f1c".to_owned(), "alpha".to_owned())];
        let names = Names(names.into());
        for (text, shown) in [
            ("node 4f1c", "node alpha (4f1c)"),
            ("node 77aa", "node 77aa"),
            ("spiffe://mesh/node/4f1c", "node alpha (4f1c)"),
            (
                "certificate spiffe://mesh/node/77aa",
                "certificate node 77aa",
            ),
            ("spiffe://mesh/control-plane", "spiffe://mesh/control-plane"),
            ("operator 4f1c (77aa)", "operator 4f1c (77aa)"),
            (
                "POST /api/nodes/4f1c/heartbeat",
                "POST /api/nodes/4f1c/heartbeat",
            ),
            ("", ""),
        ] {
            assert_eq!(names.in_words(text), shown);
        }
    }
}
