//! The life of the authority where the database goes back, or is lost, in the middle of it, and where several want another.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::authority::{Pair, give, keys_in};
use crate::joining::{Host, token, told};
use crate::process::{ControlPlane, Setup};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn key_file(folder: &Path) -> PathBuf {
    folder.join("authority.key.pem")
}

/// Another authority signs, and the node has a certificate of it.
async fn activate(setup: &Setup, control: &ControlPlane, host: &mut Host) {
    told(setup, &["ca", "rotate", "prepare"]).unwrap();
    assert_eq!(host.renew(control).await.status, 200);
    told(setup, &["ca", "rotate", "activate"]).unwrap();
    assert_eq!(host.renew(control).await.status, 200);
}

fn said_of_it(control: &ControlPlane) -> usize {
    let log = control.log();
    let lines = log.iter();
    lines
        .filter(|line| line.contains("WARN") && line.contains("it signs again"))
        .count()
}

/// Which authority signs.
fn signs(setup: &Setup) -> String {
    let shown = told(setup, &["ca", "show"]).unwrap();
    let line = shown.lines().find(|line| line.contains("yes")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_database_from_before_a_rotation_gets_the_authority_that_signs_back_at_the_start() {
    for is_finished in [true, false] {
        let setup = Setup::new();
        let control = setup.start();
        let mut host = Host::join(&control, &token(&setup, &[])).await;
        host.register(&control, "alpha", "192.0.2.1").await;
        assert!(control.stop().success());
        let backup = fs::read(setup.db_path()).unwrap();
        let control = setup.start();
        activate(&setup, &control, &mut host).await;
        if is_finished {
            told(&setup, &["ca", "rotate", "finish"]).unwrap();
        }
        let newer = signs(&setup);
        assert!(control.stop().success());
        fs::write(setup.db_path(), &backup).unwrap();
        let file = key_file(setup.folder());
        let keys = fs::read_to_string(&file).unwrap();
        // It is not lost, whatever is asked for.
        if is_finished {
            let asked = Setup::new()
                .with_db_path(setup.db_path())
                .with_environment("QUILT_MESH_NEW_AUTHORITY", "true");
            let said = asked.start_refused();
            assert!(said.contains("Start without --new-authority"), "{said}");
            assert_eq!(fs::read_to_string(&file).unwrap(), keys);
        }
        let control = setup.start();
        assert_eq!(host.beat(&control).await.status, 200);
        assert_eq!(host.renew(&control).await.status, 200);
        assert_eq!(signs(&setup), newer);
        assert_eq!(fs::read_to_string(&file).unwrap(), keys);
        assert_eq!(said_of_it(&control), 1);
        let audit = told(&setup, &["audit"]).unwrap();
        assert_eq!(audit.matches("put back authority").count(), 1, "{audit}");
        Host::join(&control, &token(&setup, &[])).await;
        assert!(control.stop().success());
        let control = setup.start();
        assert_eq!(said_of_it(&control), 0);
        assert_eq!(host.beat(&control).await.status, 200);
    }
}

#[tokio::test]
async fn a_database_that_goes_back_under_replicas_gets_the_authority_that_signs_back() {
    let pair = Pair::start().await;
    let [first, second] = [&pair.running[0], &pair.running[1]];
    let mut host = Host::join(first, &token(&pair.setups[0], &[])).await;
    host.register(first, "alpha", "192.0.2.1").await;
    let dump = pair.postgres.dump(&pair.url).unwrap();
    told(&pair.setups[0], &["ca", "rotate", "prepare"]).unwrap();
    give(&pair.setups[0], &pair.setups[1]);
    assert_eq!(host.renew(first).await.status, 200);
    told(&pair.setups[0], &["ca", "rotate", "activate"]).unwrap();
    assert_eq!(host.renew(first).await.status, 200);
    told(&pair.setups[0], &["ca", "rotate", "finish"]).unwrap();
    let newer = signs(&pair.setups[0]);
    let until = Instant::now() + PATIENCE;
    while pair.files().iter().any(|file| keys_in(file) != 1) {
        assert!(Instant::now() < until, "a replica has the old key still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    pair.postgres
        .replace_database(&pair.url, Some(&dump))
        .unwrap();
    let put_back = || said_of_it(first) + said_of_it(second);
    while put_back() == 0 {
        assert!(Instant::now() < until, "it is not put back");
        // Nobody is shut out meanwhile: at most the database does not answer.
        for control in [first, second] {
            let answer = host.beat(control).await;
            assert!([200, 503].contains(&answer.status), "{answer:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (control, setup) in pair.running.iter().zip(&pair.setups) {
        while host.renew(control).await.status != 200 {
            assert!(Instant::now() < until, "it gets no certificate");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(signs(setup), newer);
        Host::join(control, &token(setup, &[])).await;
    }
    assert_eq!(put_back(), 1);
    assert_eq!(
        pair.files().map(|file| keys_in(&file)),
        [1, 1],
        "what the database had is not what the replicas lack"
    );
}

#[tokio::test]
async fn nothing_is_put_back_where_another_replica_has_the_key_of_the_one_that_signs() {
    let mut pair = Pair::start().await;
    let mut host = Host::join(&pair.running[0], &token(&pair.setups[0], &[])).await;
    host.register(&pair.running[0], "alpha", "192.0.2.1").await;
    let older = signs(&pair.setups[0]);
    assert!(pair.running.remove(1).stop().success());
    let dump = pair.postgres.dump(&pair.url).unwrap();
    activate(&pair.setups[0], &pair.running[0], &mut host).await;
    told(&pair.setups[0], &["ca", "rotate", "finish"]).unwrap();
    assert!(pair.running.remove(0).stop().success());
    pair.postgres
        .replace_database(&pair.url, Some(&dump))
        .unwrap();
    let second = pair.setups[1].start();
    Host::join(&second, &token(&pair.setups[1], &[])).await;
    let said = pair.setups[0].start_refused();
    assert!(
        said.contains(&older) && said.contains("ca import"),
        "{said}"
    );
    assert_eq!(signs(&pair.setups[1]), older);
}

#[tokio::test]
async fn a_database_lost_while_a_rotation_is_under_way_comes_back_with_the_one_that_signed() {
    for (is_activated, has_states) in [(false, true), (false, false), (true, true)] {
        let setup = Setup::new();
        let control = setup.start();
        let mut host = Host::join(&control, &token(&setup, &[])).await;
        host.register(&control, "alpha", "192.0.2.1").await;
        match is_activated {
            true => activate(&setup, &control, &mut host).await,
            false => drop(told(&setup, &["ca", "rotate", "prepare"]).unwrap()),
        }
        let signed = signs(&setup);
        let exported = told(&setup, &["ca", "export"]).unwrap();
        let file = key_file(setup.folder());
        assert_eq!(fs::read_to_string(&file).unwrap(), exported);
        let other = if is_activated { "last" } else { "next" };
        for state in ["signs", other] {
            assert_eq!(
                exported.matches(&format!("# state: {state}\n")).count(),
                1,
                "{exported}"
            );
        }
        assert!(control.stop().success());
        fs::remove_file(setup.db_path()).unwrap();
        if !has_states {
            let lines = exported.lines().filter(|line| !line.starts_with('#'));
            let text: String = lines.map(|line| format!("{line}\n")).collect();
            fs::write(&file, text).unwrap();
        }
        let control = setup.start();
        host.register(&control, "alpha", "192.0.2.1").await;
        assert_eq!(host.beat(&control).await.status, 200);
        assert_eq!(signs(&setup), signed);
        // The rotation goes on where it was.
        assert_eq!(host.renew(&control).await.status, 200);
        if !is_activated {
            told(&setup, &["ca", "rotate", "activate"]).unwrap();
            assert_eq!(host.renew(&control).await.status, 200);
        }
        told(&setup, &["ca", "rotate", "finish"]).unwrap();
        assert_eq!(host.beat(&control).await.status, 200);
    }
}

/// Both lost the key, and are told to make another.
async fn without_keys() -> (Pair, [Setup; 2]) {
    let mut pair = Pair::start().await;
    token(&pair.setups[0], &[]);
    for control in pair.running.drain(..) {
        assert!(control.stop().success());
    }
    for file in pair.files() {
        fs::remove_file(file).unwrap();
    }
    let asked = pair.setups.each_ref().map(|setup| {
        Setup::new()
            .on(&pair.url)
            .with_environment("QUILT_MESH_STATE_DIR", setup.folder().to_str().unwrap())
            .with_environment("QUILT_MESH_NEW_AUTHORITY", "true")
    });
    (pair, asked)
}

#[tokio::test]
async fn of_two_replicas_that_are_told_at_once_to_make_another_authority_one_does_at_most() {
    let (pair, asked) = without_keys().await;
    let started: Vec<_> = std::thread::scope(|scope| {
        let threads = asked
            .each_ref()
            .map(|setup| scope.spawn(|| setup.start_or_refused()));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    let count = "SELECT count(*) FROM audit WHERE action = 'replace lost authority'";
    let replaced = pair.postgres.execute(&pair.url, count).unwrap();
    let serving = started.iter().filter(|it| it.is_ok()).count();
    assert!(serving <= 1, "both serve, each by an authority of its own");
    assert_eq!(replaced.trim(), serving.to_string());
    for (it, file) in started.iter().zip(pair.files()) {
        assert_eq!(it.is_ok(), file.exists());
        if let Err(said) = it {
            assert!(
                said.contains("do not say") || said.contains("is not lost"),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn an_authority_that_somebody_made_meanwhile_stays() {
    let (pair, [asked, _]) = without_keys().await;
    let other = Setup::new();
    let control = other.start();
    let (key, certificate) = (
        signs(&other),
        told(&other, &["ca", "show", "--pem"]).unwrap(),
    );
    drop(control);
    let said = std::thread::scope(|scope| {
        let refused = scope.spawn(|| asked.start_or_refused().map(drop).unwrap_err());
        let until = Instant::now() + PATIENCE;
        // It asks the others.
        let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
        while pair.postgres.execute(&pair.url, listening).unwrap().trim() == "0" {
            assert!(Instant::now() < until, "it does not ask");
            std::thread::sleep(Duration::from_millis(20));
        }
        let made =
            format!("UPDATE authorities SET key_digest = '{key}', certificate = '{certificate}'");
        pair.postgres.execute(&pair.url, &made).unwrap();
        refused.join().unwrap()
    });
    assert!(
        said.contains("is not lost") && said.contains(&key),
        "{said}"
    );
    let folder = fs::read_dir(pair.setups[0].folder()).unwrap();
    let names: Vec<_> = folder.map(|entry| entry.unwrap().file_name()).collect();
    let of_keys = |name: &&std::ffi::OsString| name.to_string_lossy().contains("key.pem");
    assert_eq!(names.iter().find(of_keys), None);
}

#[tokio::test]
async fn a_key_that_has_ended_is_dropped_where_its_file_cannot_be_written_and_that_is_said_once() {
    let setup = Setup::new();
    let control = setup.start();
    let mut host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    activate(&setup, &control, &mut host).await;
    let file = key_file(setup.folder());
    let both = fs::read_to_string(&file).unwrap();
    // No file takes its place.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(file.join("in-the-way"), "").unwrap();
    told(&setup, &["ca", "rotate", "finish"]).unwrap();
    for _ in 0..5 {
        assert_eq!(host.renew(&control).await.status, 200);
    }
    let log = control.log();
    let said = log
        .iter()
        .filter(|line| line.contains("WARN") && line.contains("authority"));
    assert_eq!(said.count(), 1, "{log:?}");
    let exported = told(&setup, &["ca", "export"]).unwrap();
    assert_eq!(exported.matches("BEGIN PRIVATE KEY").count(), 1);
    // When it can be written, the key goes from it as well.
    fs::remove_dir_all(&file).unwrap();
    mesh_credentials::secret_file::create(&file, &both).unwrap();
    let until = Instant::now() + PATIENCE;
    while fs::read_to_string(&file).unwrap() != exported {
        assert!(Instant::now() < until, "it is not written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
