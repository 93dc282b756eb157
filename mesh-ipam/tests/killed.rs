//! A process that is killed while it leases addresses: whatever it was told of is on the disk.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use mesh_ipam::{Ipam, Lifetime, NamedLabels, Owner, Request};
use tokio::task::JoinSet;

const DIRECTORY: &str = "LEASES_OF_A_KILLED_PROCESS";
const TEST: &str = "what_was_confirmed_survives_a_kill";
const LIFE: &str = "this";
const CALLERS: u32 = 8;

fn request(container: String) -> Request {
    Request {
        owner: Owner::new("docker", "quilt", &container, "eth0").unwrap(),
        wished: None,
        named: NamedLabels::default(),
        namespace: None,
        lifetime: Lifetime::Released,
        endpoint: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// Leases and releases until it is killed. Every third lease stays, and is told of in one line.
fn lease_for_ever(directory: &Path) {
    runtime().block_on(async {
        let ipam = Ipam::open(directory, LIFE).unwrap();
        ipam.set_subnet("10.42.0.0/16".parse().unwrap())
            .await
            .unwrap();
        let mut tasks = JoinSet::new();
        let process = std::process::id();
        for caller in 0..CALLERS {
            let ipam = ipam.clone();
            tasks.spawn(async move {
                for number in 0.. {
                    let request = request(format!("c{process}.{caller}.{number}"));
                    let owner = request.owner.clone();
                    let lease = ipam.allocate(request).await.unwrap().lease;
                    if number % 3 == 0 {
                        let line = format!("held {} {}\n", lease.address, owner.container());
                        std::io::stdout().write_all(line.as_bytes()).unwrap();
                    } else {
                        ipam.release(&owner, Some(lease.address)).await.unwrap();
                    }
                }
            });
        }
        tasks.join_all().await;
    });
}

/// A child that is killed whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended, and is waited for in any case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_was_confirmed_survives_a_kill() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return lease_for_ever(directory.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut confirmed: Vec<(String, String)> = Vec::new();
    for round in 0..20_usize {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let out = BufReader::new(child.0.stdout.take().unwrap());
        // Killed at some line, while the next ones are on their way, which are read to the end.
        let at = 1 + round * 37 % 101;
        let mut seen = 0;
        for line in out.lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            // The harness writes lines of its own; the last may have been cut.
            let Some("held") = words.next() else { continue };
            if let (Some(address), Some(container)) = (words.next(), words.next()) {
                confirmed.push((address.to_owned(), container.to_owned()));
            }
            seen += 1;
            if seen == at {
                child.0.kill().unwrap();
            }
        }
        assert!(seen >= at, "round {round}: the child ended at line {seen}");
        drop(child);
        let ipam = Ipam::open(dir.path(), LIFE).unwrap();
        for (address, container) in &confirmed {
            let lease = ipam.lease_at(address.parse().unwrap());
            let holder = lease.as_ref().map(|lease| lease.owner.container());
            assert_eq!(holder, Some(&**container), "round {round}: {address}");
        }
        // Beyond that there is what was under way: a lease for each caller of each round.
        let unconfirmed = ipam.leases().len() - confirmed.len();
        assert!(
            unconfirmed <= (round + 1) * CALLERS as usize,
            "{unconfirmed}"
        );
    }
    assert!(!dir.path().join("leases.damaged-1").exists());
}
