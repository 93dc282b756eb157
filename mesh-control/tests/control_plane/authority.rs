//! The life of the authority: under a database that is lost, when its key is lost, at replicas, and while another takes its
//! place.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_testbed::{Postgres, PostgresOptions};
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::answer::{Answer, Api, keyed};
use crate::joining::{Host, token, told};
use crate::process::{ControlPlane, Setup};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two replicas that share an authority, on a database of their own.
pub(crate) struct Pair {
    // Dropped first.
    pub(crate) running: Vec<ControlPlane>,
    pub(crate) setups: [Setup; 2],
    pub(crate) url: String,
    pub(crate) postgres: Postgres,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
        let url = postgres.create_database().unwrap();
        let setups = [(); 2].map(|()| Setup::new().on(&url));
        let mut running = vec![setups[0].start()];
        give(&setups[0], &setups[1]);
        running.push(setups[1].start());
        Self {
            running,
            setups,
            url,
            postgres,
        }
    }

    pub(crate) fn files(&self) -> [PathBuf; 2] {
        self.setups
            .each_ref()
            .map(|setup| setup.folder().join("authority.key.pem"))
    }
}

/// Gives the authority with its key to another replica.
pub(crate) fn give(from: &Setup, to: &Setup) {
    let exported = told(from, &["ca", "export"]).unwrap();
    let file = to.folder().join("given.pem");
    std::fs::write(&file, exported).unwrap();
    told(to, &["ca", "import", file.to_str().unwrap()]).unwrap();
}

pub(crate) fn keys_in(file: &PathBuf) -> usize {
    let text = std::fs::read_to_string(file).unwrap();
    text.matches("BEGIN PRIVATE KEY").count()
}

/// Whether a process of this host is let in without credentials.
async fn is_open(control: &ControlPlane) -> bool {
    let plain = Api::of(control);
    let read = Answer::to(plain.request(Method::GET, "/api/nodes")).await;
    let new = plain.register(keyed("key-of-a-thief", "thief", "192.0.2.99"));
    read.status == 200 || new.await.status == 200
}

fn backups(setup: &Setup) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(setup.folder()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_kept = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("authority.key.pem.")
    };
    paths.filter(is_kept).collect()
}

#[tokio::test]
async fn an_emptied_database_gets_its_authority_back_without_a_restart_and_lets_nobody_in() {
    let mut pair = Pair::start().await;
    let [first, second] = [&pair.running[0], &pair.running[1]];
    let two = token(&pair.setups[0], &["--uses", "2"]);
    let host = Host::join(first, &two).await;
    let subnet = host.register(first, "alpha", "192.0.2.1").await;
    let revoked = Host::join(first, &two).await;
    revoked.register(first, "beta", "192.0.2.2").await;
    told(&pair.setups[0], &["node", "revoke", revoked.node_id()]).unwrap();
    assert!(!is_open(first).await && !is_open(second).await);

    pair.postgres.replace_database(&pair.url, None).unwrap();
    let until = Instant::now() + PATIENCE;
    let held = json!({"subnet": subnet});
    loop {
        for control in [first, second] {
            assert!(
                !is_open(control).await,
                "it is open to everybody of this host"
            );
        }
        let answer = host
            .try_register(second, "alpha", "192.0.2.1", held.clone())
            .await;
        if answer.status == 200 && answer.body.contains(&subnet) {
            assert!(answer.body.contains(host.node_id()), "{answer:?}");
            break;
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(Instant::now() < until, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // At both: whoever was revoked is, and hosts can join.
    for (control, setup) in pair.running.iter().zip(&pair.setups) {
        while host.beat(control).await.status != 200 {
            assert!(Instant::now() < until, "it is not let in again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Or slowed down, after so many refusals.
        let answer = revoked.beat(control).await;
        assert!([401, 429].contains(&answer.status), "{answer:?}");
        let new = Host::join(control, &token(setup, &[])).await;
        assert_eq!(new.mesh_id(), host.mesh_id());
    }

    // And while none of them runs.
    for control in pair.running.drain(..) {
        assert!(control.stop().success());
    }
    pair.postgres.replace_database(&pair.url, None).unwrap();
    let control = pair.setups[1].start();
    assert!(!is_open(&control).await);
    let answer = host
        .try_register(&control, "alpha", "192.0.2.1", held)
        .await;
    assert!(answer.body.contains(&subnet), "{answer:?}");
    // Who has no memory of it is told by the database.
    let newcomer = Setup::new().on(&pair.url);
    let backup = newcomer.folder().join("backup.pem");
    std::fs::write(&backup, told(&pair.setups[1], &["ca", "export"]).unwrap()).unwrap();
    told(&newcomer, &["ca", "import", backup.to_str().unwrap()]).unwrap();
    assert!(!is_open(&newcomer.start()).await);
}

#[tokio::test]
async fn a_cluster_from_before_goes_on_as_it_was_when_its_database_is_emptied() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.create_database().unwrap();
    let setup = Setup::new().on(&url);
    let control = setup.start();
    told(&setup, &["secure", "--undo"]).unwrap();
    told(&setup, &["operator", "create", "ada"]).unwrap();
    let plain = Api::of(&control);
    let body = keyed("k", "alpha", "192.0.2.1");
    let (node, _) = plain.register(body.clone()).await.admitted();
    postgres.replace_database(&url, None).unwrap();
    let until = Instant::now() + PATIENCE;
    // At first it is not noticed, or does not answer.
    while plain.heartbeat(&node).await.status != 404 {
        assert!(Instant::now() < until, "it is not noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    loop {
        let answer = plain.register(body.clone()).await;
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(Instant::now() < until, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told(&setup, &["security"]).unwrap().contains("open"));
}

#[tokio::test]
async fn a_control_plane_whose_database_is_lost_lets_nobody_of_its_host_in() {
    let setup = Setup::new();
    let control = setup.start();
    told(&setup, &["operator", "create", "ada"]).unwrap();
    assert!(!is_open(&control).await);
    assert!(control.stop().success());
    std::fs::remove_file(setup.db_path()).unwrap();
    let control = setup.start();
    assert!(!is_open(&control).await);
    told(&setup, &["token", "create"]).unwrap();
    // A new one, which never had any, is what it always was.
    let setup = Setup::new();
    assert!(is_open(&setup.start()).await);
}

#[tokio::test]
async fn a_new_authority_opens_nothing_and_keeps_the_file_that_there_was() {
    let setup = Setup::new();
    let control = setup.start();
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    assert!(control.stop().success());
    // In its place is the file of another mesh.
    let other = Setup::new();
    drop(other.start());
    let file = setup.folder().join("authority.key.pem");
    std::fs::copy(other.folder().join("authority.key.pem"), &file).unwrap();
    let wrong = std::fs::read_to_string(&file).unwrap();
    let setup = setup.with_environment("QUILT_MESH_NEW_AUTHORITY", "true");
    let control = setup.start();
    assert!(!is_open(&control).await);
    let kept = backups(&setup);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(std::fs::read_to_string(&kept[0]).unwrap(), wrong);
    let mode = std::fs::metadata(&kept[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = control.log().join("\n");
    assert!(
        said.contains("nodes=1") && said.contains("join again"),
        "{said}"
    );
    // The next start changes nothing.
    assert!(control.stop().success());
    let control = setup.start();
    assert!(!is_open(&control).await);
    assert_eq!(backups(&setup).len(), 1);
}

#[tokio::test]
async fn a_new_authority_is_refused_while_another_replica_serves_with_the_old_one() {
    let mut pair = Pair::start().await;
    let host = Host::join(&pair.running[0], &token(&pair.setups[0], &[])).await;
    host.register(&pair.running[0], "alpha", "192.0.2.1").await;
    assert!(pair.running.remove(1).stop().success());
    let file = pair.files()[1].clone();
    std::fs::remove_file(&file).unwrap();
    let folder = pair.setups[1].folder().to_owned();
    let setup = Setup::new()
        .on(&pair.url)
        .with_environment("QUILT_MESH_STATE_DIR", folder.to_str().unwrap())
        .with_environment("QUILT_MESH_NEW_AUTHORITY", "true");
    let said = setup.start_refused();
    assert!(
        said.contains("is not lost") && said.contains("ca export"),
        "{said}"
    );
    assert!(!file.exists());
    assert_eq!(host.beat(&pair.running[0]).await.status, 200);
    // It was the last that had it.
    assert!(pair.running.remove(0).stop().success());
    let control = setup.start();
    assert!(file.exists());
    assert!(!is_open(&control).await);
}

#[tokio::test]
async fn every_replica_drops_the_key_of_an_authority_whose_place_another_has_taken() {
    let mut pair = Pair::start().await;
    told(&pair.setups[0], &["ca", "rotate", "prepare"]).unwrap();
    give(&pair.setups[0], &pair.setups[1]);
    let files = pair.files();
    assert_eq!([keys_in(&files[0]), keys_in(&files[1])], [2, 2]);
    told(&pair.setups[0], &["ca", "rotate", "activate"]).unwrap();
    told(&pair.setups[0], &["ca", "rotate", "finish"]).unwrap();
    let until = Instant::now() + PATIENCE;
    while keys_in(&files[1]) != 1 {
        assert!(Instant::now() < until, "the other replica has it still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let text = |file: &PathBuf| std::fs::read_to_string(file).unwrap();
    assert_eq!(text(&files[0]), text(&files[1]));
    // One that does not run meanwhile does so at its start.
    told(&pair.setups[0], &["ca", "rotate", "prepare"]).unwrap();
    give(&pair.setups[0], &pair.setups[1]);
    told(&pair.setups[0], &["ca", "rotate", "activate"]).unwrap();
    assert!(pair.running.remove(1).stop().success());
    told(&pair.setups[0], &["ca", "rotate", "finish"]).unwrap();
    assert_eq!([keys_in(&files[0]), keys_in(&files[1])], [1, 2]);
    pair.running.push(pair.setups[1].start());
    assert_eq!(text(&files[0]), text(&files[1]));
}

#[tokio::test]
async fn a_certificate_is_signed_by_the_authority_that_signs_when_it_is_noted() {
    let pair = Pair::start().await;
    let made = token(&pair.setups[1], &["--uses", "2"]);
    let mut renewing = Host::join(&pair.running[1], &made).await;
    told(&pair.setups[0], &["ca", "rotate", "prepare"]).unwrap();
    give(&pair.setups[0], &pair.setups[1]);
    // It hears of the next one.
    assert_eq!(renewing.renew(&pair.running[1]).await.status, 200);
    // Whoever changes credentials waits for this, and goes on in the order in which it came: that of an update would have all
    // of them begin anew.
    let mut locking = PgConnection::connect(&pair.url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT 1 FROM cluster WHERE id = 1 FOR UPDATE")
        .execute(&mut locking)
        .await
        .unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND query LIKE 'UPDATE cluster SET credentials_revision%'";
    let until_waiting = async |count: &str| {
        let until = Instant::now() + PATIENCE;
        while pair.postgres.execute(&pair.url, waiting).unwrap().trim() != count {
            assert!(Instant::now() < until, "there are not {count} that wait");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut activate = Command::new(env!("CARGO_BIN_EXE_quilt-mesh-control"))
        .args(["ca", "rotate", "activate", "--state-dir"])
        .arg(pair.setups[0].folder())
        .spawn()
        .unwrap();
    until_waiting("1").await;
    let join = async {
        let mut host = Host::new();
        host.try_join(&pair.running[1], &made, None).await.unwrap();
        host
    };
    let release = async {
        until_waiting("2").await;
        sqlx::raw_sql("COMMIT").execute(&mut locking).await.unwrap();
    };
    let (host, ()) = tokio::join!(join, release);
    assert!(activate.wait().unwrap().success());
    host.register(&pair.running[1], "alpha", "192.0.2.1").await;
    // Had the last one signed, this would be refused with its name.
    told(&pair.setups[0], &["ca", "rotate", "finish"]).unwrap();
    assert_eq!(host.beat(&pair.running[1]).await.status, 200);
}

#[tokio::test]
async fn a_host_that_asks_again_by_its_token_is_in_the_audit() {
    let setup = Setup::new();
    let control = setup.start();
    let made = token(&setup, &[]);
    let mut host = Host::new();
    for _ in 0..2 {
        host.try_join(&control, &made, None).await.unwrap();
    }
    let audit = told(&setup, &["audit"]).unwrap();
    let line = audit.lines().find(|line| line.contains("join again"));
    let line = line.unwrap_or_else(|| panic!("{audit}"));
    assert!(
        line.contains(host.node_id()) && line.contains("127.0.0.1"),
        "{audit}"
    );
}
