//! Statements with many rows.

/// As many rows of placeholders, numbered on from `first`, with the types of their columns: PostgreSQL has to be
/// told in VALUES.
pub(in crate::store) fn rows(count: usize, first: usize, types: &[&str]) -> String {
    let row = |row: usize| {
        let cells = types.iter().enumerate().map(|(column, kind)| {
            let place = first + row * types.len() + column;
            format!("CAST(${place} AS {kind})")
        });
        format!("({})", cells.collect::<Vec<_>>().join(", "))
    };
    (0..count).map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_placeholders_are_numbered_on() {
        assert_eq!(
            rows(2, 2, &["TEXT", "BIGINT"]),
            "(CAST($2 AS TEXT), CAST($3 AS BIGINT)), (CAST($4 AS TEXT), CAST($5 AS BIGINT))"
        );
    }
}
