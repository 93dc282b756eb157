//! Processes on a host, with scripts in the place of the real daemons.
#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{fs, os::unix::process::ExitStatusExt as _, path::PathBuf, time::Duration};

use mesh_testbed::{
    Daemon, DaemonOptions, Host, Privileges, Signal, Testbed, wait_until, write_script,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A program that does this instead of what a daemon does.
fn script(host: &Host, name: &str, body: &str) -> PathBuf {
    let path = host.dir().join(name);
    write_script(&path, body).unwrap();
    path
}

async fn logged(host: &Host, daemon: Daemon, text: &str) -> String {
    wait_until(text, DEADLINE, async || {
        let log = fs::read_to_string(host.log(daemon)).unwrap();
        match log.contains(text) {
            true => Ok(log),
            false => Err(log),
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn an_agent_has_no_capability_and_a_runtime_has_root_s() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let program = script(
        host,
        "caps",
        "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status; exec sleep 100",
    );
    let options = DaemonOptions::new().binary(&program);

    host.spawn(Daemon::Agent, &options).unwrap();
    let log = logged(host, Daemon::Agent, "CapBnd").await;
    let none = "0000000000000000";
    assert_eq!(log.matches(none).count(), 3, "{log}");

    host.spawn(Daemon::Runtime, &options).unwrap();
    let log = logged(host, Daemon::Runtime, "CapBnd").await;
    assert_eq!(log.matches(none).count(), 0, "{log}");

    let options = options.privileges(Privileges::None);
    host.stop(Daemon::Runtime, Signal::SIGKILL, DEADLINE)
        .await
        .unwrap();
    host.spawn(Daemon::Runtime, &options).unwrap();
    logged(host, Daemon::Runtime, &format!("CapBnd:\t{none}")).await;
}

#[tokio::test]
async fn a_daemon_that_ends_early_is_reported_with_its_last_words() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let program = script(host, "unlucky", "echo 'the map is upside down' >&2; exit 3");
    let error = host
        .start_runtime(&DaemonOptions::new().binary(program))
        .await
        .unwrap_err()
        .to_string();
    for part in [
        "the map is upside down",
        "exit status: 3",
        "nsenter --net=/run/netns/",
        "host1",
    ] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
}

#[tokio::test]
async fn a_daemon_is_stopped_restarted_and_killed() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let body = "trap 'echo leaving; exit 0' TERM; echo started $MARK; while :; do sleep 0.05; done";
    let options = DaemonOptions::new()
        .binary(script(host, "patient", body))
        .env("MARK", "here");

    host.spawn(Daemon::Agent, &options).unwrap();
    assert!(
        host.spawn(Daemon::Agent, &options).is_err(),
        "one at a time"
    );
    logged(host, Daemon::Agent, "started here").await;
    let first = host.pid(Daemon::Agent).unwrap();
    host.restart(Daemon::Agent).unwrap();
    assert_ne!(host.pid(Daemon::Agent).unwrap(), first);
    // The options of the first start are those of the second.
    logged(host, Daemon::Agent, "started here\nstarted here\n").await;

    let status = host
        .stop(Daemon::Agent, Signal::SIGTERM, DEADLINE)
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    logged(host, Daemon::Agent, "leaving").await;
    assert!(
        host.kill(Daemon::Agent, Signal::SIGTERM).is_err(),
        "it is not running"
    );

    host.spawn(Daemon::Agent, &options).unwrap();
    let status = host
        .stop(Daemon::Agent, Signal::SIGKILL, DEADLINE)
        .await
        .unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
}

#[tokio::test]
async fn dropping_the_testbed_ends_its_daemons() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let options = DaemonOptions::new().binary(script(host, "idle", "echo up; exec sleep 100"));
    host.spawn(Daemon::Runtime, &options).unwrap();
    logged(host, Daemon::Runtime, "up").await;
    assert!(host.resident_bytes(Daemon::Runtime).unwrap() > 0);
    let pid = host.pid(Daemon::Runtime).unwrap();
    drop(testbed);
    assert!(
        !fs::exists(format!("/proc/{pid}")).unwrap(),
        "process {pid} is left"
    );
}
