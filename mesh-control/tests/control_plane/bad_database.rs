//! A database that cannot be used: the control plane does not start, says which file and what to do,
//! and leaves everything as it was.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sqlx::Connection as _;

use crate::answer::{Api, node};
use crate::process::Setup;
use crate::refusal::{is_refused, with_nodes};

async fn execute(setup: &Setup, statement: &'static str) {
    let mut connection = setup.database().await;
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[test]
fn a_folder_is_not_a_database() {
    let setup = Setup::new();
    let folder = setup.folder().join("control.db");
    std::fs::create_dir(folder).unwrap();
    is_refused(&setup, &["give the path of a file"]);
}

#[test]
fn a_missing_folder_is_not_created() {
    let setup = Setup::new();
    let path = setup.folder().join("missing/control.db");
    is_refused(&setup.with_db_path(path), &["create the directory first"]);
}

#[test]
fn a_file_is_not_a_folder_for_a_database() {
    let setup = Setup::new();
    std::fs::write(setup.folder().join("file"), "x").unwrap();
    let path = setup.folder().join("file/control.db");
    is_refused(&setup.with_db_path(path), &["cannot open the database"]);
}

#[test]
fn a_path_that_the_kernel_refuses_is_an_error() {
    let said = Setup::new()
        .with_db_path("/proc/self/control.db")
        .start_refused();
    assert!(
        said.contains("cannot open the database /proc/self/control.db"),
        "{said}"
    );
}

#[tokio::test]
async fn an_unreadable_database_is_refused() {
    let setup = Setup::new();
    with_nodes(&setup).await;
    let permissions = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    permissions(setup.db_path(), 0o000);
    permissions(setup.folder(), 0o777);
    // Root may read everything; "nobody" may not.
    let setup = if nix::unistd::geteuid().is_root() {
        setup.run_by(65534)
    } else {
        setup
    };
    let said = setup.start_refused();
    assert!(said.contains(setup.db_path().to_str().unwrap()), "{said}");
    assert!(
        said.contains("make the file and its directory writable for this user"),
        "{said}"
    );
    permissions(setup.db_path(), 0o600);
}

#[tokio::test]
async fn a_database_in_a_folder_that_cannot_be_written_is_refused() {
    let setup = Setup::new();
    with_nodes(&setup).await;
    std::fs::set_permissions(setup.db_path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(setup.folder(), std::fs::Permissions::from_mode(0o555)).unwrap();
    // SQLite needs to create its log beside the file.
    let setup = if nix::unistd::geteuid().is_root() {
        setup.run_by(65534)
    } else {
        setup
    };
    is_refused(&setup, &["make the file and its directory writable"]);
    std::fs::set_permissions(setup.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn garbage_is_not_a_database() {
    for garbage in [
        &b"x"[..],
        &[0xa5; 8192],
        b"SQLite format 3\0",
        b"SQLite format 4\0 and so on",
    ] {
        let setup = Setup::new();
        std::fs::write(setup.db_path(), garbage).unwrap();
        is_refused(&setup, &["is damaged", "Restore it from a backup"]);
    }
}

#[tokio::test]
async fn a_truncated_database_is_refused() {
    let setup = Setup::new();
    with_nodes(&setup).await;
    let whole = std::fs::read(setup.db_path()).unwrap();
    for length in [
        50,
        100,
        4096,
        4096 + 17,
        whole.len() - 4096,
        whole.len() - 1,
    ] {
        std::fs::write(setup.db_path(), &whole[..length]).unwrap();
        is_refused(&setup, &["is damaged", "Restore it from a backup"]);
    }
    std::fs::write(setup.db_path(), &whole).unwrap();
    let control_plane = setup.start();
    assert_eq!(Api::of(&control_plane).nodes().await.len(), 60);
}

#[tokio::test]
async fn a_database_with_a_damaged_page_is_refused() {
    let setup = Setup::new();
    with_nodes(&setup).await;
    let whole = std::fs::read(setup.db_path()).unwrap();
    // The page's type and cell count; page 1 is the schema.
    for page in [1, 2] {
        let mut damaged = whole.clone();
        let at = if page == 1 { 100 } else { (page - 1) * 4096 };
        damaged[at..at + 64].fill(0xa5);
        std::fs::write(setup.db_path(), damaged).unwrap();
        is_refused(&setup, &["is damaged", "Restore it from a backup"]);
    }
}

#[tokio::test]
async fn a_damaged_database_with_a_pending_log_is_refused_and_the_log_kept() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    control_plane.kill();
    let log = setup.folder().join("control.db-wal");
    let pending = std::fs::read(&log).unwrap();
    assert!(!pending.is_empty());
    let mut database = std::fs::read(setup.db_path()).unwrap();
    database.truncate(0);
    database.extend_from_slice(&[0xa5; 4096]);
    std::fs::write(setup.db_path(), &database).unwrap();
    is_refused(&setup, &["is damaged"]);
    assert!(std::fs::read(&log).unwrap() == pending);
}

#[tokio::test]
async fn another_program_s_database_is_refused() {
    let setup = Setup::new();
    execute(&setup, "CREATE TABLE recipes (name TEXT)").await;
    is_refused(
        &setup,
        &["some other program", "recipes", "another --db-path"],
    );
}

#[tokio::test]
async fn a_newer_version_s_database_is_refused() {
    let setup = Setup::new();
    with_nodes(&setup).await;
    let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                  VALUES (9999, 'from the future', TRUE, x'00', 0)";
    execute(&setup, insert).await;
    is_refused(&setup, &["written by another version", "9999"]);
}

#[tokio::test]
async fn a_second_control_plane_on_one_database_is_refused() {
    let setup = Setup::new();
    let first = setup.start();
    let said = setup.start_refused();
    assert!(
        said.contains("in use by another quilt-mesh-control"),
        "{said}"
    );
    // The lock goes with the process, however it ends.
    Api::of(&first)
        .register(node("a", "192.0.2.1"))
        .await
        .admitted();
    first.kill();
    assert_eq!(Api::of(&setup.start()).nodes().await.len(), 1);
}
