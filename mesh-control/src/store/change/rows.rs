//! Statements with many rows.

use crate::store::transaction::Dialect;

/// How a statement names what is bound to it.
#[derive(Debug)]
pub(in crate::store) enum Places {
    /// `$1`, `$2`, …, from this one on: in whatever order, and each as often as one likes.
    Numbered(usize),
    /// `?`, in the order in which they are bound.
    InOrder,
}

impl Places {
    /// The places of a statement that names each once and in the order in which they are bound. SQLite searches what has a
    /// name among all names before it, when it reads the statement and again when sqlx binds to it: where there are a
    /// thousand that costs as much as what the statement does.
    pub(in crate::store) fn in_order(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Sqlite => Self::InOrder,
            Dialect::Postgres => Self::Numbered(1),
        }
    }

    /// The next one.
    pub(in crate::store) fn take(&mut self) -> String {
        match self {
            Self::InOrder => "?".to_owned(),
            Self::Numbered(next) => {
                let place = format!("${next}");
                *next += 1;
                place
            }
        }
    }

    /// As many rows of places, with the types of their columns: PostgreSQL has to be told in VALUES.
    pub(in crate::store) fn rows(&mut self, count: usize, types: &[&str]) -> String {
        let mut row = || {
            let cells = types
                .iter()
                .map(|kind| format!("CAST({} AS {kind})", self.take()));
            format!("({})", cells.collect::<Vec<_>>().join(", "))
        };
        (0..count).map(|_| row()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_places_are_numbered_on_or_in_order() {
        let rows = |mut places: Places| (places.take(), places.rows(2, &["TEXT", "BIGINT"]));
        let numbered = rows(Places::in_order(Dialect::Postgres));
        assert_eq!(numbered.0, "$1");
        assert_eq!(
            numbered.1,
            "(CAST($2 AS TEXT), CAST($3 AS BIGINT)), (CAST($4 AS TEXT), CAST($5 AS BIGINT))"
        );
        let in_order = rows(Places::in_order(Dialect::Sqlite));
        assert_eq!(in_order.0, "?");
        assert_eq!(
            in_order.1,
            "(CAST(? AS TEXT), CAST(? AS BIGINT)), (CAST(? AS TEXT), CAST(? AS BIGINT))"
        );
    }
}
