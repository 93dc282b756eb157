//! What a node has on a kernel: which path, and which guards. The guest reads it from the node's
//! status and the packet filter, so that what is published of kernels is what was seen there.

use serde::{Deserialize, Serialize};

/// What a node has on a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// What `uname -r` says.
    pub release: String,
    /// How the fast path's programs are attached; empty without a fast path.
    pub attach_mode: String,
    /// Programs that guard, by name, each once.
    pub programs: Vec<String>,
    /// Tables of the packet filter that guard, e.g. `bridge quilt_mesh`.
    pub tables: Vec<String>,
    /// Why there is no fast path; empty if there is one.
    pub reason: String,
}

impl Standing {
    /// The line, without its end.
    ///
    /// # Errors
    ///
    /// None that can happen: there is nothing in it that JSON cannot hold.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Reads a line; `None` if it is none of these.
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }

    /// A table of them in Markdown.
    pub fn table(standings: &[Self]) -> String {
        let mut lines = vec![
            "| kernel | path | guards: eBPF programs | guards: nftables tables | why no fast path |"
                .to_owned(),
            "|---|---|---|---|---|".to_owned(),
        ];
        lines.extend(standings.iter().map(Self::row));
        lines.join("\n")
    }

    fn row(&self) -> String {
        let path = match self.attach_mode.as_str() {
            "" => "kernel path".to_owned(),
            mode => format!("fast path ({mode})"),
        };
        let listed = |names: &[String]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        format!(
            "| {} | {path} | {} | {} | {} |",
            self.release,
            listed(&self.programs),
            listed(&self.tables),
            self.reason
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Doing, Outcome};

    #[test]
    fn a_node_without_the_fast_path_is_a_row_that_says_why() {
        let standing = Standing {
            release: "5.10.0-46-cloud-amd64".to_owned(),
            attach_mode: String::new(),
            programs: Vec::new(),
            tables: vec!["inet quilt_mesh".to_owned()],
            reason: "too old".to_owned(),
        };
        let line = standing.to_line().unwrap();
        assert_eq!(Outcome::from_line(&line), None);
        assert_eq!(Doing::from_line(&line), None);
        assert_eq!(
            Standing::from_line(&format!("{line}\r\n")),
            Some(standing.clone())
        );
        let table = Standing::table(&[standing]);
        let row = "| 5.10.0-46-cloud-amd64 | kernel path | none | inet quilt_mesh | too old |";
        assert_eq!(table.lines().last(), Some(row));
    }
}
