//! Pages of documentation whose figures a run replaces.

use std::{fs, io, path::Path};

use anyhow::Context as _;

const END: &str = "<!-- figures: end -->";

/// Writes figures into a page: between the marks of this benchmark if it has them, else as the page.
pub(crate) fn write(path: &Path, benchmark: &str, figures: &str) -> anyhow::Result<()> {
    let page = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    fs::write(path, insert(&page, benchmark, figures))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The page with the figures between its marks; without marks, the figures.
fn insert(page: &str, benchmark: &str, figures: &str) -> String {
    let begin = format!("<!-- figures of `cargo xtask bench {benchmark}`: begin -->");
    let parts = page.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    match parts {
        Some((before, after)) => format!("{before}{begin}\n\n{figures}\n{END}{after}"),
        None => format!("{begin}\n\n{figures}\n{END}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_figures_replace_the_old_ones_and_nothing_else() {
        let first = insert("", "dataplane", "old\n");
        let page = format!("# Title\n{first}\nReading\n");
        let page = insert(&page, "dataplane", "new\n");
        assert!(page.starts_with("# Title\n") && page.ends_with("\nReading\n"));
        assert!(page.contains("\nnew\n") && !page.contains("old"));
        assert_eq!(page, insert(&page, "dataplane", "new\n"));
    }
}
