//! The control plane against a simple model of it: registrations, hosts that lose their state, heartbeats,
//! silence, releases, reservations, crowds, SIGKILL at any moment and restarts, in random order, over the REST
//! API of the real process. On SQLite with one control plane, on PostgreSQL with three replicas. The model
//! foretells the exact subnet of every lease.
//!
//! A failure prints the shortest sequence of steps that still fails, and the seed. Processes and
//! time are not repeatable, so the same seed gives the same steps and not always the same end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "the other test programs use the rest")]
#[path = "../control_plane/answer.rs"]
mod answer;
#[allow(dead_code, reason = "the other test programs use the rest")]
#[path = "../control_plane/process.rs"]
mod process;

mod cluster;
mod follower;
mod list;
mod model;
mod order;
mod run;
mod steps;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mesh_testbed::{Postgres, PostgresOptions};
use proptest::strategy::Strategy as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::Runtime;

use crate::cluster::Cluster;
use crate::run::Run;
use crate::steps::{Step, steps};

/// Repeats the steps of an earlier run.
const SEED: &str = "QUILT_MESH_MODEL_SEED";

/// Makes the runs longer: how many seconds to go on with new sequences.
const SECONDS: &str = "QUILT_MESH_MODEL_SECONDS";

/// Runs sequences of at most `most` steps until the time is over. `test` returns how many leases it foretold.
fn check(most: usize, test: impl Fn(&Runtime, &[Step]) -> usize) {
    let seed: u64 = match std::env::var(SEED) {
        Ok(seed) => seed.parse().expect("the seed is a number"),
        Err(_) => uuid::Uuid::new_v4().as_u64_pair().0,
    };
    eprintln!("repeat these steps with {SEED}={seed}");
    let seconds =
        std::env::var(SECONDS).map_or(30, |text| text.parse().expect("a number of seconds"));
    let over = Instant::now() + Duration::from_secs(seconds);
    let config = Config {
        cases: u32::MAX,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    // One draws sequences, the other runs and shortens them.
    let mut drawer = TestRunner::new_with_rng(config.clone(), rng.clone());
    let mut runner = TestRunner::new_with_rng(config, rng);
    let runtime = Runtime::new().unwrap();
    let strategy = steps(most);
    let mut runs = 0;
    let foretold = AtomicUsize::new(0);
    while runs == 0 || Instant::now() < over {
        let sequence = strategy.new_tree(&mut drawer).unwrap();
        let outcome = runner.run_one(sequence, |steps| {
            foretold.fetch_add(test(&runtime, &steps), Ordering::Relaxed);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{error}\nrun {runs} with {SEED}={seed}");
        }
        runs += 1;
    }
    let foretold = foretold.into_inner();
    eprintln!("{runs} sequences, {foretold} leases as foretold");
    assert!(foretold > 0, "nothing was leased");
}

#[test]
fn on_sqlite_subnets_are_handed_out_in_order_none_has_two_holders_and_nothing_acknowledged_is_lost()
{
    check(40, |runtime, steps| {
        let timeout = Duration::from_millis(400);
        runtime.block_on(async {
            Run::new(Cluster::sqlite("400ms"), None, timeout)
                .all(steps)
                .await
        })
    });
}

#[test]
fn on_postgresql_with_three_replicas_subnets_are_handed_out_in_order_none_has_two_holders_and_nothing_acknowledged_is_lost()
 {
    let runtime = Runtime::new().unwrap();
    let server = runtime
        .block_on(Postgres::new(&PostgresOptions::new()))
        .unwrap();
    check(30, |runtime, steps| {
        let timeout = Duration::from_secs(1);
        let url = server.create_database().unwrap();
        runtime.block_on(async {
            let database = Some((&server, url.as_str()));
            Run::new(Cluster::postgres(&url, "1s"), database, timeout)
                .all(steps)
                .await
        })
    });
}
