//! Starts that must fail, and must change nothing on disk.

use std::collections::BTreeMap;
use std::path::Path;

use crate::answer::{Api, node};
use crate::process::Setup;

/// Every file in a folder, with its bytes.
pub(crate) fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    // A folder that is not there has nothing in it.
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeMap::new();
    };
    entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

/// Starts, expects a refusal that names the database and has these words, and no change on disk.
#[track_caller]
pub(crate) fn is_refused(setup: &Setup, words: &[&str]) {
    let before = content(setup.db_path().parent().unwrap());
    let after = is_refused_leaving(setup, words);
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
}

/// The same, but files may be added; returns what is there now.
#[track_caller]
pub(crate) fn is_refused_leaving(setup: &Setup, words: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let folder = setup.db_path().parent().unwrap();
    let before = content(folder);
    let said = setup.start_refused();
    let path = setup.db_path().to_str().unwrap();
    for words in [&[path], words].concat() {
        assert!(said.contains(words), "{words:?} is missing in: {said}");
    }
    let after = content(folder);
    for (name, bytes) in &before {
        assert!(after.get(name) == Some(bytes), "{name} was changed");
    }
    after
}

/// A database with nodes in it, closed in order. Enough of them for several pages.
pub(crate) async fn with_nodes(setup: &Setup) {
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    for n in 1..=60 {
        api.register(node(&format!("host-{n}"), &format!("192.0.2.{n}")))
            .await
            .admitted();
    }
    assert!(control_plane.stop().success());
}
