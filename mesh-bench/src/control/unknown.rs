//! One of two replicas under heartbeats of nodes that there are not, each of which it has to look up in the database: how
//! long newcomers wait meanwhile.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use comfy_table::{CellAlignment, Table};
use mesh_rest::admitted::Admitted;
use mesh_testbed::{Postgres, PostgresOptions};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    agents::registration,
    connection::Connection,
    measure::{LARGE, TIMEOUT},
    server::Server,
};
use crate::figure::{STYLE, milliseconds, percentile};

/// Connections over which the strangers ask.
const CONNECTIONS: u32 = 64;

/// How long it is watched, without the strangers and with them.
const WATCHED: Duration = Duration::from_secs(20);

/// Between two registrations.
const NEWCOMER_INTERVAL: Duration = Duration::from_millis(20);

/// Measures with so many heartbeats a second, and prints.
pub(crate) async fn run(per_second: u32) -> anyhow::Result<()> {
    let postgres = Postgres::new(&PostgresOptions::new().durable()).await?;
    let database = postgres.create_database()?;
    let options = [LARGE.as_slice(), &TIMEOUT].concat();
    let asked = Server::start_at("127.0.0.1:0", Some(&database), &options).await?;
    let other = Server::start_at("127.0.0.1:0", Some(&database), &options).await?;
    let mut table = Table::new();
    table.load_style(STYLE).set_header([
        "unknown heartbeats, 1/s",
        "registrations",
        "p50, ms",
        "p99",
        "max",
        "cores",
        "RSS, MB",
    ]);
    let mut first_host = 0;
    for strangers in [0, per_second] {
        eprintln!("{strangers} heartbeats a second of nodes that there are not");
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut crowd = JoinSet::new();
        if strangers > 0 {
            let pause = Duration::from_secs(CONNECTIONS.into()) / strangers;
            for _ in 0..CONNECTIONS {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                crowd.spawn(ask(asked.address, pause, stop, answered));
            }
        }
        let (before, started) = (asked.usage()?, Instant::now());
        let waits = newcomers(asked.address, first_host, started + WATCHED).await?;
        let seconds = started.elapsed().as_secs_f64();
        let after = asked.usage()?;
        stop.store(true, Relaxed);
        while let Some(ended) = crowd.join_next().await {
            ended.context("a stranger failed")??;
        }
        first_host += u32::try_from(waits.len())?;
        table.add_row([
            format!(
                "{:.0}",
                u32::try_from(answered.load(Relaxed)).map(f64::from)? / seconds
            ),
            waits.len().to_string(),
            percentile(&waits, 50),
            percentile(&waits, 99),
            percentile(&waits, 100),
            format!("{:.2}", after.cores_since(&before)),
            (after.resident / 1_000_000).to_string(),
        ]);
    }
    other.stop().await?;
    asked.stop().await?;
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    Ok(())
}

/// One heartbeat each `pause`, of another node each time, until `stop`.
async fn ask(
    address: SocketAddr,
    pause: Duration,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(address).await?;
    let mut turns = interval(pause);
    // What the control plane cannot take is not made up for.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Relaxed) {
        turns.tick().await;
        let path = format!("/api/nodes/{}/heartbeat", uuid::Uuid::new_v4());
        let answer = connection.post(&path, "{}").await?;
        ensure!(answer.status == 404, "answered {}", answer.status);
        answered.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// How long hosts wait that register one after the other until then, in milliseconds, in ascending order.
async fn newcomers(
    address: SocketAddr,
    first_host: u32,
    until: Instant,
) -> anyhow::Result<Vec<f64>> {
    let mut waits = Vec::new();
    let mut connection = Connection::open(address).await?;
    for number in first_host.. {
        if Instant::now() >= until {
            break;
        }
        let asked = Instant::now();
        let registration = registration(number, None);
        let answer = connection
            .post("/api/nodes/register", &registration)
            .await?;
        waits.push(milliseconds(asked.elapsed()));
        let _: Admitted = answer.json()?;
        sleep(NEWCOMER_INTERVAL).await;
    }
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}
