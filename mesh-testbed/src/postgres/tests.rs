#[path = "../../tests/child/mod.rs"]
mod child;

use std::{env, process::Stdio};

use child::Again;

use super::*;

/// What a server is known by from outside: its process, files and shared memory.
#[derive(Debug)]
struct Traces {
    pid: u32,
    dir: PathBuf,
    shared_memory: String,
}

impl Traces {
    fn of(postgres: &Postgres) -> Self {
        let lock = fs::read_to_string(postgres.data().join(remains::LOCK_FILE)).unwrap();
        Self {
            pid: postgres.pid().unwrap(),
            dir: postgres.dir.clone(),
            shared_memory: lock.lines().nth(6).unwrap().trim().to_owned(),
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let command = fs::read_to_string(format!("/proc/{}/cmdline", self.pid));
        if command.is_ok_and(|it| it.contains("postgres")) {
            left.push(format!("process {}", self.pid));
        }
        if self.dir.exists() {
            left.push(self.dir.display().to_string());
        }
        let id = self.shared_memory.split_whitespace().nth(1).unwrap();
        let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
        if segments
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some(id))
        {
            left.push(format!("shared memory {id}"));
        }
        left
    }
}

#[tokio::test]
async fn a_server_serves_keeps_what_was_committed_and_leaves_nothing() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.create_database().unwrap();
    let other = postgres.create_database().unwrap();
    postgres
        .execute(
            &url,
            "CREATE TABLE kept (n INTEGER); INSERT INTO kept VALUES (1)",
        )
        .unwrap();
    let count = || {
        postgres
            .execute(&url, "SELECT COUNT(*), MAX(n) FROM kept")
            .unwrap()
    };
    assert_eq!(count().trim(), "1|1");
    assert!(
        postgres.execute(&other, "SELECT * FROM kept").is_err(),
        "databases are apart"
    );

    let before = postgres.pid().unwrap();
    postgres.restart().await.unwrap();
    assert_ne!(postgres.pid(), Some(before));
    assert_eq!(count().trim(), "1|1");

    postgres
        .execute(&url, "INSERT INTO kept VALUES (2)")
        .unwrap();
    let killed = Traces::of(&postgres);
    postgres.kill().await.unwrap();
    assert_eq!(killed.left(), [postgres.dir.display().to_string()]);
    let refused = postgres.execute(&url, "SELECT 1").unwrap_err().to_string();
    assert!(refused.contains("Connection refused"), "{refused}");
    postgres.start().await.unwrap();
    assert_eq!(count().trim(), "2|2");

    postgres.stop().await.unwrap();
    assert!(postgres.execute(&url, "SELECT 1").is_err());
    postgres.start().await.unwrap();
    assert_eq!(count().trim(), "2|2");

    let traces = Traces::of(&postgres);
    assert_eq!(traces.left().len(), 3, "the check sees a server");
    drop(postgres);
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[tokio::test]
async fn nobody_gets_in_without_the_password() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.url().replace(&postgres.password, "guess");
    let refused = postgres.execute(&url, "SELECT 1").unwrap_err().to_string();
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
}

#[tokio::test]
async fn two_servers_at_a_time_do_not_meet() {
    let one = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let options = PostgresOptions::new().durable().connections(30);
    let other = Postgres::new(&options).await.unwrap();
    assert_ne!(one.address(), other.address());
    let settings = |postgres: &Postgres| {
        let sql = "SELECT current_setting('fsync'), current_setting('max_connections')";
        postgres.execute(&postgres.url(), sql).unwrap()
    };
    assert_eq!(settings(&one).trim(), "off|100");
    assert_eq!(settings(&other).trim(), "on|30");
}

#[tokio::test]
async fn a_server_that_runs_is_not_started_twice() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let refused = postgres.start().await.unwrap_err().to_string();
    assert!(refused.contains("runs already"), "{refused}");
}

const CHILD: &str = "TESTBED_POSTGRES_CHILD";

#[tokio::test]
async fn nothing_is_left_after_sigkill_of_the_test() {
    if env::var_os(CHILD).is_some() {
        let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
        let Traces {
            pid,
            dir,
            shared_memory,
        } = Traces::of(&postgres);
        println!("\nmade {pid};{};{shared_memory}", dir.display());
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut child = Again::start(
        "postgres::tests::nothing_is_left_after_sigkill_of_the_test",
        CHILD,
        Stdio::inherit(),
    );
    let made = child.made();
    let words: Vec<&str> = made.split(';').collect();
    let traces = Traces {
        pid: words[0].parse().unwrap(),
        dir: words[1].into(),
        shared_memory: words[2].to_owned(),
    };
    assert_eq!(traces.left().len(), 3, "the check sees a server");
    child.signal(Signal::SIGKILL);
    child.end();
    wait_until("removal of everything", PATIENCE, async || {
        match traces.left() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?} is left")),
        }
    })
    .await
    .unwrap();
}
