//! docs/PROBLEMS.md is what the catalogue says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{env, fs, path::Path};

/// Where it is set, the page is written anew.
const WRITE: &str = "QUILT_MESH_WRITE_DOCUMENTS";

#[test]
fn the_page_of_problems_is_what_the_catalogue_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROBLEMS.md");
    let page = mesh_problems::page();
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &page).unwrap();
    }
    let held = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        held == page,
        "docs/PROBLEMS.md is not what the catalogue says: {WRITE}=1 cargo test -p mesh-problems"
    );
}
