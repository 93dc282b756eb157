//! The file of the authority's keys: taken up from before, emptied, removed and replaced while a control plane runs, and
//! exported.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::joining::{Host, tell, token, told};
use crate::process::{ControlPlane, Setup};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

const KEY_FILE: &str = "authority.key.pem";

fn file(setup: &Setup) -> PathBuf {
    setup.folder().join(KEY_FILE)
}

/// Waits for a line of the log with this in it, beyond those it had.
async fn logged(control: &ControlPlane, before: usize, part: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let log = control.log();
        let mut lines = log.iter().skip(before);
        if let Some(line) = lines.find(|line| line.contains(part)) {
            return line.clone();
        }
        assert!(Instant::now() < until, "nothing of {part:?}: {log:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn certificates_printed_into_ca_pem_beside_the_database_leave_the_authority_alone() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    // As it is done by people, in the directory where the control plane keeps its files.
    let printed = Command::new("sh")
        .args([
            "-c",
            "\"$0\" ca show --pem --db-path ./control.db > ca.pem",
            env!("CARGO_BIN_EXE_quilt-mesh-control"),
        ])
        .current_dir(setup.folder())
        .status()
        .unwrap();
    assert!(printed.success());
    assert!(control.stop().success());
    let control = setup.start();
    assert_eq!(host.beat(&control).await.status, 200);
    let text = fs::read_to_string(setup.folder().join("ca.pem")).unwrap();
    assert!(text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE"));
}

#[tokio::test]
async fn a_key_file_of_before_is_taken_up_at_the_start_and_by_an_export() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    assert!(control.stop().success());
    let keys = fs::read_to_string(file(&setup)).unwrap();
    let old = setup.folder().join("ca.pem");
    fs::rename(file(&setup), &old).unwrap();
    let control = setup.start();
    assert_eq!(host.beat(&control).await.status, 200);
    assert!(!old.exists());
    assert_eq!(fs::read_to_string(file(&setup)).unwrap(), keys);
    let said = control.log();
    let said = said.iter().filter(|line| line.contains("another name now"));
    assert_eq!(said.count(), 1);
    assert!(control.stop().success());
    fs::rename(file(&setup), &old).unwrap();
    assert_eq!(told(&setup, &["ca", "export"]).unwrap(), keys);
    assert!(file(&setup).exists() && !old.exists());
    // There is an authority, whatever its file was called.
    fs::rename(file(&setup), &old).unwrap();
    told(&setup, &["ca", "init"]).unwrap_err();
    assert_eq!(fs::read_to_string(file(&setup)).unwrap(), keys);
}

#[tokio::test]
async fn an_export_of_nothing_fails_and_one_to_a_file_is_its_owners_and_takes_no_others_place() {
    let setup = Setup::new();
    let exported = |words: &[&str]| {
        let said = tell(&setup, words);
        assert!(!said.status.success(), "{said:?}");
        assert_eq!(said.stdout, b"", "{said:?}");
        String::from_utf8(said.stderr).unwrap()
    };
    let error = exported(&["ca", "export"]);
    assert!(error.contains("nothing to export"), "{error}");
    // As a shell leaves it.
    for text in ["", "-----BEGIN CERTIFICATE-----\n"] {
        fs::write(file(&setup), text).unwrap();
        let error = exported(&["ca", "export"]);
        assert!(error.contains("no private key"), "{error}");
    }
    fs::remove_file(file(&setup)).unwrap();
    let control = setup.start();
    let backup = setup.folder().join("backup.pem");
    let to_backup = ["ca", "export", "--file", backup.to_str().unwrap()];
    assert_eq!(told(&setup, &to_backup).unwrap(), "");
    let keys = fs::read_to_string(file(&setup)).unwrap();
    assert_eq!(fs::read_to_string(&backup).unwrap(), keys);
    let mode = fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&backup, "precious").unwrap();
    let error = told(&setup, &to_backup).unwrap_err();
    assert!(error.contains("is there already"), "{error}");
    assert_eq!(fs::read_to_string(&backup).unwrap(), "precious");
    assert!(control.stop().success());
}

#[tokio::test]
async fn a_key_file_that_is_lost_is_written_again_and_one_with_other_keys_is_left_alone() {
    let setup = Setup::new();
    let control = setup.start();
    let keys = fs::read_to_string(file(&setup)).unwrap();
    let certificates = told(&setup, &["ca", "show", "--pem"]).unwrap();
    for lost in [None, Some(""), Some(certificates.as_str())] {
        let before = control.log().len();
        match lost {
            None => fs::remove_file(file(&setup)).unwrap(),
            Some(text) => fs::write(file(&setup), text).unwrap(),
        }
        let line = logged(&control, before, "ERROR").await;
        for part in [KEY_FILE, "ca export --file", "written them there again"] {
            assert!(line.contains(part), "{line}");
        }
        logged(&control, before, "is right again").await;
        assert_eq!(fs::read_to_string(file(&setup)).unwrap(), keys);
    }
    let other = Setup::new();
    drop(other.start());
    let others = fs::read_to_string(file(&other)).unwrap();
    let before = control.log().len();
    fs::write(file(&setup), &others).unwrap();
    let line = logged(&control, before, "ERROR").await;
    for part in ["other keys", "left as it is", "ca export --file"] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(fs::read_to_string(file(&setup)).unwrap(), others);
    assert_eq!(told(&setup, &["ca", "export"]).unwrap(), keys);
    fs::write(file(&setup), &keys).unwrap();
    logged(&control, before, "is right again").await;
    let log = control.log();
    let said = log.iter().filter(|line| line.contains("ERROR")).count();
    assert_eq!(said, 4, "{log:?}");
}

#[tokio::test]
async fn a_key_file_without_a_key_is_named_once_with_what_to_do_and_gives_way() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    let certificates = told(&setup, &["ca", "show", "--pem"]).unwrap();
    let keys = told(&setup, &["ca", "export"]).unwrap();
    assert!(control.stop().success());
    let cut = &keys[..keys.len() - 30];
    for (text, why) in [
        (certificates.as_str(), "does not have the key"),
        (cut, "does not hold"),
    ] {
        fs::write(file(&setup), text).unwrap();
        let said = setup.start_refused();
        assert_eq!(said.matches(why).count(), 1, "{said}");
        for part in ["ca import FILE", "--new-authority"] {
            assert_eq!(said.matches(part).count(), 1, "{said}");
        }
    }
    // From a backup, in its place; it stays beside it.
    fs::write(file(&setup), &certificates).unwrap();
    let backup = setup.folder().join("backup.pem");
    fs::write(&backup, &keys).unwrap();
    told(&setup, &["ca", "import", backup.to_str().unwrap()]).unwrap();
    let control = setup.start();
    assert_eq!(host.beat(&control).await.status, 200);
    assert!(control.stop().success());
    let kept = || {
        let entries = fs::read_dir(setup.folder()).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        let kept: Vec<_> = names
            .filter(|path| path.to_string_lossy().contains(&format!("{KEY_FILE}.")))
            .collect();
        kept
    };
    assert_eq!(kept().len(), 1);
    // Without one.
    fs::write(file(&setup), &certificates).unwrap();
    let again = Setup::new()
        .with_db_path(setup.db_path())
        .with_environment("QUILT_MESH_NEW_AUTHORITY", "true");
    let control = again.start();
    token(&setup, &[]);
    assert!(control.stop().success());
    let kept = kept();
    assert_eq!(kept.len(), 2);
    for path in kept {
        assert_eq!(fs::read_to_string(path).unwrap(), certificates);
    }
}
