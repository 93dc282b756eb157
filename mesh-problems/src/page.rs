//! docs/PROBLEMS.md, from the catalogue.

use std::fmt::Write as _;

use crate::{
    Kind,
    catalog::{CHAPTERS, Chapter},
};

const HEAD: &str = "\
# Problems

What can be wrong in a mesh, each with a code that never means anything else. `meshctl status`, `doctor`, `ping`, `check` and `nodes` show \
those that are there, with what was observed, what it breaks, what to do, and since when; the daemons log them with a field \
`code`; `GET /api/findings` tells those of the cluster and of its nodes. `meshctl explain CODE` shows one of this page.

An **error** is something that does not work: commands that look end with 1. A **warning** is something that works in part, \
more slowly, or only until something else happens. A **notice** is something to know.

This page is made from the definitions in `mesh-problems/src/catalog`, and a test holds it to them: \
`QUILT_MESH_WRITE_DOCUMENTS=1 cargo test -p mesh-problems` writes it anew.
";

/// The page.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for chapter in CHAPTERS {
        chapter_of(&mut page, chapter);
    }
    page
}

fn chapter_of(page: &mut String, chapter: &Chapter) {
    // Writing to a string does not fail.
    let _ = write!(page, "\n## {}\n\n{}\n", chapter.title, chapter.about);
    for kind in chapter.kinds {
        section(page, kind);
    }
}

fn section(page: &mut String, kind: &Kind) {
    let Kind {
        code,
        severity,
        title,
        breaks,
        remedy,
    } = kind;
    let _ = write!(
        page,
        "\n### `{code}`\n\n{title} ({severity}).\n\n- Breaks: {breaks}.\n- Do: {remedy}.\n"
    );
}
