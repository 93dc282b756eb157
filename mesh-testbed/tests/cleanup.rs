//! Nothing is left behind, however a process with a testbed ends.
#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

mod child;

use std::{env, fs, os::unix::process::ExitStatusExt as _, process::Stdio, time::Duration};

use child::Again;
use mesh_testbed::{Signal, Testbed, wait_until};

const CHILD: &str = "TESTBED_CLEANUP_CHILD";

#[tokio::test]
async fn nothing_is_left_after_a_drop() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let name = testbed.name().to_owned();
    assert!(!left_of(&name).is_empty(), "the check sees a testbed");
    drop(testbed);
    assert_eq!(left_of(&name), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_left_after_sigkill() {
    nothing_is_left_of_a_child("nothing_is_left_after_sigkill", Some(Signal::SIGKILL)).await;
}

#[tokio::test]
async fn nothing_is_left_after_ctrl_c() {
    nothing_is_left_of_a_child("nothing_is_left_after_ctrl_c", Some(Signal::SIGINT)).await;
}

#[tokio::test]
async fn nothing_is_left_after_a_panic() {
    nothing_is_left_of_a_child("nothing_is_left_after_a_panic", None).await;
}

#[tokio::test]
async fn a_kept_testbed_stays_until_it_is_removed() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let name = testbed.name().to_owned();
    testbed.keep().unwrap();
    let before = left_of(&name);
    drop(testbed);
    assert_eq!(left_of(&name), before);
    assert!(mesh_testbed::kept_testbeds().contains(&name));
    mesh_testbed::remove_kept_testbed(&name).unwrap();
    assert_eq!(left_of(&name), Vec::<String>::new());
    assert!(!mesh_testbed::kept_testbeds().contains(&name));
}

/// Runs `test` again in a child that makes a testbed and waits to be ended.
async fn nothing_is_left_of_a_child(test: &str, signal: Option<Signal>) {
    if env::var_os(CHILD).is_some() {
        let testbed = Testbed::builder().hosts(2).build().await.unwrap();
        // A process that nobody registered: found by its namespace.
        #[expect(
            clippy::zombie_processes,
            reason = "this process is about to be killed"
        )]
        let sleeper = testbed.hosts()[0]
            .netns()
            .command("sleep")
            .arg("1000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        println!("\nmade {} {}", testbed.name(), sleeper.id());
        assert!(signal.is_some(), "the panic that this test is about");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut child = Again::start(test, CHILD, Stdio::null());
    let made = child.made();
    let (name, sleeper) = made.split_once(' ').unwrap();
    let sleeper: u32 = sleeper.parse().unwrap();
    if let Some(signal) = signal {
        assert!(!left_of(name).is_empty(), "the check sees a testbed");
        child.signal(signal);
    }
    let status = child.end();
    match signal {
        Some(signal) => assert_eq!(status.signal(), Some(signal as i32)),
        None => assert!(!status.success(), "the child was to panic"),
    }
    wait_until(
        "removal of everything",
        Duration::from_secs(20),
        async || {
            let mut left = left_of(name);
            if is_sleep(sleeper) {
                left.push(format!("process {sleeper}"));
            }
            match left.is_empty() {
                true => Ok(()),
                false => Err(format!("{left:?} is left")),
            }
        },
    )
    .await
    .unwrap();
}

fn is_sleep(pid: u32) -> bool {
    // A zombie of a process that has gone has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
}

/// Namespaces, mounts and directories of a testbed.
fn left_of(name: &str) -> Vec<String> {
    let mut left: Vec<String> = fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|netns| netns.starts_with(&format!("{name}-")))
        .collect();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mine =
        |line: &&str| line.contains(&format!("/{name}-")) || line.contains(&format!("/{name}/"));
    left.extend(mounts.lines().filter(mine).map(str::to_owned));
    let dir = format!("{}/{name}", mesh_testbed::ROOT);
    if fs::exists(&dir).unwrap() {
        left.push(dir);
    }
    left.sort();
    left
}
