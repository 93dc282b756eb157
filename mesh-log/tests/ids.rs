//! Each event that the daemons log has an id.

#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What logs nothing, or not by way of this crate: the programs in the kernel speak by aya-log.
const OTHERS: [&str; 2] = ["mesh-ebpf", "mesh-log"];
const MACROS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];

/// The source files below a directory, but those of tests.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// What follows each macro that logs: its line, and its arguments.
fn events(source: &str) -> Vec<(usize, &str)> {
    let end = source
        .find("#[cfg(test)]\nmod tests")
        .unwrap_or(source.len());
    let mut events = Vec::new();
    for (at, _) in source[..end].match_indices("!(") {
        let before = &source[..at + 2];
        let line = &before[before.rfind('\n').map_or(0, |it| it + 1)..];
        let is_word = |it: char| it.is_alphanumeric() || it == '_';
        let logs = MACROS.iter().any(|name| {
            let before = line.strip_suffix(name);
            before.is_some_and(|it| !it.ends_with(is_word) && !it.trim_start().starts_with("//"))
        });
        if logs {
            events.push((before.lines().count(), source[at + 2..].trim_start()));
        }
    }
    events
}

fn id(arguments: &str) -> Option<&str> {
    let value = arguments.strip_prefix("name:")?.trim_start();
    match value.strip_prefix('"') {
        Some(literal) => literal.split('"').next(),
        // Handed to a macro of the file's own.
        None => value.strip_prefix('$').map(|_| "of-a-macro"),
    }
}

#[test]
fn each_event_has_an_id_of_words_and_hyphens() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(workspace).unwrap() {
        let crate_ = entry.unwrap().path();
        let name = crate_.file_name().unwrap().to_str().unwrap();
        if name.starts_with("mesh-") && !OTHERS.contains(&name) && crate_.join("src").is_dir() {
            sources(&crate_.join("src"), &mut files);
        }
    }
    let (mut count, mut without) = (0, Vec::new());
    for file in &files {
        let source = fs::read_to_string(file).unwrap();
        for (line, arguments) in events(&source) {
            count += 1;
            let is_fine = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
            if !id(arguments).is_some_and(|id| id.len() > 3 && id.chars().all(is_fine)) {
                without.push(format!("{}:{line}", file.display()));
            }
        }
    }
    assert!(
        count > 300,
        "only {count} events found in {} files",
        files.len()
    );
    assert!(
        without.is_empty(),
        "no `name: \"…\"`, or not in kebab-case: {without:#?}"
    );
}

#[test]
fn an_event_without_an_id_would_be_found() {
    let source = "fn f() {\n    info!(peer, \"gone\");\n    tracing::warn!(name: \"peer-gone\", \"gone\");\n    // error!(\"no\")\n}\n";
    let found = events(source);
    let ids: Vec<_> = found.iter().map(|(line, it)| (*line, id(it))).collect();
    assert_eq!(ids, [(2, None), (3, Some("peer-gone"))]);
}
