//! Whether tables of the kernel are about to be full. Pure.

use mesh_problems::{
    Problem,
    catalog::host::{CONNECTIONS_FULL, NEIGHBOURS_FULL},
};

/// From which share of a table on, in percent, it counts as nearly full.
const NEARLY: u64 = 90;

/// A table: how many entries it has, and how many it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

impl Table {
    fn is_nearly_full(self) -> bool {
        self.limit > 0 && self.used.saturating_mul(100) >= self.limit.saturating_mul(NEARLY)
    }
}

/// What was read; `None` where the kernel has no such table, or shows it to nobody in this network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connections: Option<Table>,
    pub(crate) neighbours: Option<Table>,
}

/// The tables that are nearly full.
pub(crate) fn judge(limits: Limits) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(table) = limits.connections.filter(|it| it.is_nearly_full()) {
        let Table { used, limit } = table;
        problems.push(
            Problem::new(
                &CONNECTIONS_FULL,
                format!("conntrack has {used} connections of at most {limit}"),
            )
            .remedied_by(format!(
                "make it larger (sysctl -w net.netfilter.nf_conntrack_max={}), or find who opens so many (conntrack -L)",
                limit.saturating_mul(2)
            )),
        );
    }
    if let Some(table) = limits.neighbours.filter(|it| it.is_nearly_full()) {
        let Table { used, limit } = table;
        problems.push(
            Problem::new(
                &NEIGHBOURS_FULL,
                format!("the kernel has {used} IPv4 neighbours of at most {limit} (gc_thresh3)"),
            )
            .remedied_by(format!(
                "make it larger (sysctl -w net.ipv4.neigh.default.gc_thresh3={} net.ipv4.neigh.default.gc_thresh2={limit})",
                limit.saturating_mul(2)
            )),
        );
    }
    problems
}

/// What is said of them.
pub(crate) fn said(limits: Limits) -> String {
    let table = |name: &str, table: Option<Table>| match table {
        Some(Table { used, limit }) => format!("{used} of {limit} {name}"),
        None => format!("no limit of {name} is shown"),
    };
    format!(
        "{}, {}",
        table("connections", limits.connections),
        table("neighbours", limits.neighbours)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_told_when_it_is_nearly_full() {
        let of = |used| Limits {
            connections: Some(Table { used, limit: 1000 }),
            neighbours: Some(Table {
                used: 30,
                limit: 1024,
            }),
        };
        assert_eq!(judge(of(899)), []);
        let problems = judge(of(900));
        assert_eq!(problems[0].kind.code, "connections-full");
        assert!(problems[0].remedy().contains("nf_conntrack_max=2000"));
        let full = Limits {
            connections: None,
            neighbours: Some(Table {
                used: 1024,
                limit: 1024,
            }),
        };
        assert_eq!(judge(full)[0].kind.code, "neighbours-full");
    }

    #[test]
    fn what_is_not_shown_is_not_judged() {
        assert_eq!(judge(Limits::default()), []);
        assert!(said(Limits::default()).contains("no limit of connections is shown"));
    }
}
