//! A database that fails while the control plane runs: what needs it is answered 503 with the reason,
//! what was acknowledged stays, and when the cause is gone it goes on by itself.

use sqlx::Connection as _;

use crate::answer::{Api, node};
use crate::process::Setup;

#[tokio::test]
async fn a_database_that_another_program_locks_is_busy_and_then_is_not() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let first = api.register(node("a", "192.0.2.1")).await.admitted();
    let mut other = setup.database().await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let answer = api.register(node("b", "192.0.2.2")).await;
    let detail = answer.problem(503, "database-unavailable");
    assert!(detail.contains("busy"), "{detail}");
    assert_eq!(api.heartbeat(&first.0).await.status, 200);
    assert_eq!(api.nodes().await.len(), 1);
    other.close().await.unwrap();
    assert_eq!(
        api.register(node("b", "192.0.2.2")).await.admitted().1,
        "10.42.2.0/24"
    );
}

#[tokio::test]
async fn a_database_file_that_was_removed_takes_no_more_registrations() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    let elsewhere = setup.folder().join("elsewhere.db");
    std::fs::rename(setup.db_path(), &elsewhere).unwrap();
    let answer = api.register(node("b", "192.0.2.2")).await;
    let detail = answer.problem(503, "database-unavailable");
    assert!(detail.contains("removed or replaced"), "{detail}");
    std::fs::rename(&elsewhere, setup.db_path()).unwrap();
    assert_eq!(
        api.register(node("b", "192.0.2.2")).await.admitted().1,
        "10.42.2.0/24"
    );
}
