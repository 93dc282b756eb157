//! The admin socket of a process that could not have it when it started.

use std::time::{Duration, Instant};

use crate::joining::told;
use crate::process::{ControlPlane, Setup};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(90);

fn lines(control: &ControlPlane, words: &str) -> usize {
    let log = control.log();
    log.iter().filter(|line| line.contains(words)).count()
}

fn until_said(control: &ControlPlane, words: &str) {
    let until = Instant::now() + PATIENCE;
    while lines(control, words) == 0 {
        assert!(Instant::now() < until, "it does not say {words:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn until_served(setup: &Setup) {
    let until = Instant::now() + PATIENCE;
    while let Err(said) = told(setup, &["token", "list"]) {
        assert!(Instant::now() < until, "{said}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_admin_socket_that_another_process_has_is_had_when_that_is_gone() {
    let (first_setup, second_setup) = (Setup::new(), Setup::new());
    let directory = first_setup.folder().to_str().unwrap().to_owned();
    let first = first_setup.start();
    let second_setup = second_setup.with("--state-dir", &directory);
    let second = second_setup.start();
    told(&first_setup, &["token", "create"]).unwrap();
    // It leaves a socket behind that nobody serves.
    first.kill();
    until_served(&first_setup);
    let list = told(&first_setup, &["token", "list"]).unwrap();
    assert!(!list.contains("admin"), "another one serves: {list}");
    assert_eq!(lines(&second, "there is no admin socket"), 1);
    assert_eq!(lines(&second, "is there now"), 1);
    assert!(second.stop().success());
    assert!(!first_setup.folder().join("admin.sock").exists());
}

#[test]
fn an_admin_socket_whose_directory_is_missing_or_whose_name_is_taken_is_made_when_it_can_be() {
    let setup = Setup::new();
    let directory = setup.folder().join("later");
    let setup = setup.with("--state-dir", directory.to_str().unwrap());
    let control = setup.start();
    until_said(&control, "there is no admin socket");
    std::fs::create_dir(&directory).unwrap();
    until_said(&control, "is there now");
    assert!(directory.join("admin.sock").exists());
    assert_eq!(lines(&control, "there is no admin socket"), 1);
    // Also while it waits, a stop is one.
    drop(control);
    std::fs::remove_file(directory.join("admin.sock")).unwrap();
    std::fs::write(directory.join("admin.sock"), "of somebody").unwrap();
    let control = setup.start();
    until_said(&control, "is no socket");
    assert!(control.stop().success());
}
