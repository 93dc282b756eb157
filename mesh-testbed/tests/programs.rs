//! Programs that are run the moment they were made, while other threads start processes.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy.toml allows it in test functions, not in what they call"
)]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use mesh_testbed::{copy_program, write_script};

/// Does this many times while other threads start processes all the time.
fn beside_others(times: usize, act: impl Fn()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(Command::new("true").status().unwrap().success());
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..times).for_each(|_| act());
        }));
        is_over.store(true, Ordering::Relaxed);
        done.unwrap();
    });
}

#[test]
fn a_program_that_was_just_copied_can_be_run_whatever_other_threads_start() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    beside_others(200, || {
        copy_program(Path::new("/bin/true"), &copy).unwrap();
        assert!(Command::new(&copy).status().unwrap().success());
    });
}

#[test]
fn a_script_that_was_just_written_can_be_run_whatever_other_threads_start() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    beside_others(200, || {
        write_script(&script, "echo \"it's $1\"").unwrap();
        let output = Command::new(&script).arg("there").output().unwrap();
        assert_eq!(output.stdout, b"it's there\n");
    });
}

#[test]
fn what_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/script");
    let error = write_script(&missing, "exit 0").unwrap_err().to_string();
    assert!(error.contains("missing/script"), "{error}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}
