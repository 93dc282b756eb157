//! What replicas tell each other through the database: what if it does not arrive.

use std::time::{Duration, Instant};

use mesh_testbed::{Postgres, PostgresOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection as _, PgConnection};

use crate::answer::{Api, node};
use crate::pooler::Pooler;
use crate::process::Setup;
use crate::replicas::Replicas;

const PATIENCE: Duration = Duration::from_secs(60);

/// A process of the server that is stopped, until this is dropped: stopped, it would outlive the server.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: &str) -> Self {
        let pid = Pid::from_raw(pid.trim().parse().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may be gone.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[tokio::test]
async fn a_pooler_that_delivers_no_messages_is_refused_at_the_start_with_what_to_do() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.create_database().unwrap();
    let pooler = Pooler::start(&postgres, "transaction").await;
    // Also by connections that the pooler had before.
    for _ in 0..3 {
        let said = Setup::new().on(&pooler.url(&url)).start_refused();
        for word in ["NOTIFY", "PgBouncer", "session mode"] {
            assert!(said.contains(word), "{said}");
        }
    }
    // Nothing was written.
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(postgres.execute(&url, tables).unwrap().trim(), "0");
    drop(pooler);
    let pooler = Pooler::start(&postgres, "session").await;
    let control_plane = Setup::new().on(&pooler.url(&url)).start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    assert!(control_plane.stop().success());
}

#[tokio::test]
async fn a_connection_for_messages_that_died_without_a_word_is_made_anew() {
    let replicas = Replicas::start(2, "2s").await;
    let apis = replicas.apis();
    let (node_id, _) = apis[1].register(node("a", "192.0.2.1")).await.admitted();
    // That of the first: its process in the server is stopped, which looks like a firewall that drops.
    let listening = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                     AND query LIKE 'LISTEN%' ORDER BY backend_start LIMIT 1";
    let pid = replicas.postgres.execute(&replicas.url, listening).unwrap();
    let stopped = Stopped::new(&pid);
    let replica = &replicas.running[0];
    let mut said = Vec::new();
    let until = Instant::now() + PATIENCE;
    while !said.iter().any(|line: &String| line.contains("again")) {
        assert!(Instant::now() < until, "it was not noticed: {said:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        said.extend(replica.logged());
    }
    let lost: Vec<_> = said
        .iter()
        .filter(|line| line.contains("is lost"))
        .collect();
    assert_eq!(lost.len(), 1, "{said:?}");
    assert!(lost[0].contains("message"), "{lost:?}");
    // From here on it hears of heartbeats again, and calls nobody down who beats at the other.
    let mut last = Instant::now();
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let sent = Instant::now();
        assert_eq!(apis[1].heartbeat(&node_id).await.status, 200);
        assert!(
            last.elapsed() < Duration::from_secs(2),
            "this machine is too slow"
        );
        last = sent;
    }
    drop(stopped);
    assert_eq!(apis[0].status(&node_id).await, "up");
    // And it turns down who is silent, which needs messages to arrive.
    apis[0].wait_for(&node_id, "down").await;
}

/// The read sees the state before; it ends when the change is long known.
#[tokio::test]
async fn a_slow_read_of_an_older_state_does_not_undo_a_newer_change() {
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    apis[0].register(node("a", "192.0.2.1")).await.admitted();
    assert_eq!(apis[1].nodes().await.len(), 1);
    let mut locking = PgConnection::connect(&replicas.url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE removed_nodes IN ACCESS EXCLUSIVE MODE")
        .execute(&mut locking)
        .await
        .unwrap();
    // Whoever reads now has seen the nodes, and waits for the table of those that were removed.
    let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock' AND query LIKE '%FROM removed_nodes%'";
    let until = Instant::now() + PATIENCE;
    let pids = loop {
        let pids = replicas.postgres.execute(&replicas.url, waiting).unwrap();
        if pids.lines().count() >= 2 {
            break pids;
        }
        assert!(Instant::now() < until, "nobody reads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // Both of these reads take longer than what follows.
    let stopped: Vec<_> = pids.lines().map(Stopped::new).collect();
    sqlx::raw_sql("COMMIT").execute(&mut locking).await.unwrap();
    let joining: Vec<_> = (0..2)
        .map(|n| {
            let api = apis[n].clone();
            let body = node(&format!("b-{n}"), &format!("192.0.2.1{n}"));
            tokio::spawn(async move { api.register(body).await.admitted() })
        })
        .collect();
    let stored = "SELECT count(*) FROM nodes";
    let until = Instant::now() + PATIENCE;
    while replicas
        .postgres
        .execute(&replicas.url, stored)
        .unwrap()
        .trim()
        != "3"
    {
        assert!(Instant::now() < until, "they were not stored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(stopped);
    for joining in joining {
        joining.await.unwrap();
    }
    for api in &apis {
        let list = api.list().await;
        assert_eq!(list["nodes"].as_array().unwrap().len(), 3, "{list}");
        assert_eq!(list["revision"], 3);
    }
    for (n, replica) in replicas.running.iter().enumerate() {
        // What it says of a read that ended before has come by when this has.
        let name = format!("last-{n}");
        let last = node(&name, &format!("192.0.2.2{n}"));
        apis[n].register(last).await.admitted();
        let mut said: Vec<String> = Vec::new();
        let until = Instant::now() + PATIENCE;
        while !said.iter().any(|line| line.contains(&name)) {
            assert!(Instant::now() < until, "{said:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            said.extend(replica.logged());
        }
        let misled = |line: &String| line.contains("history") || line.contains("went back");
        assert!(!said.iter().any(misled), "{said:?}");
    }
}
