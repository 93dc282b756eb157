//! What a node's daemons take while nothing happens, in a full cluster and with many containers.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mesh_rest::{registration::Registration, status::Status};
use mesh_testbed::{Daemon, DaemonOptions, Host, wait_until};

use crate::{
    figure::{Figure, quantile},
    node::{PEERS, fresh_testbed, peer_address},
    usage::Usage,
};

/// Containers of the node.
const CONTAINERS: usize = 50;
/// How long nothing has happened before that is watched.
const SETTLED: Duration = Duration::from_secs(5);
/// How long nothing happens.
const WATCHED: Duration = Duration::from_secs(20);
/// How long the node may take to know its peers and containers.
const PATIENCE: Duration = Duration::from_secs(60);

/// One real node, and as many as there are subnets left that only the control plane knows; first without containers.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let testbed = fresh_testbed().await?;
    let (host, control) = (&testbed.hosts()[0], testbed.control());
    // Nodes on paper have no certificates.
    let none = DaemonOptions::new().plain();
    // They send no heartbeats and shall stay up for as long as this takes.
    control
        .start(&none.clone().args(["--node-timeout", "10m"]))
        .await?;
    host.start_runtime(&none).await?;
    host.spawn(Daemon::Agent, &none)?;
    control
        .wait_status(host.name(), Status::Up, Duration::from_secs(20))
        .await?;
    for number in 1..=PEERS {
        let node = Registration::new(format!("paper{number}"), peer_address(number));
        control
            .call(async move |client| client.register(&node).await)
            .await?;
    }
    host.wait_peers(PEERS.into(), PATIENCE).await?;

    let mut figures = watch(host, 0).await?;
    let mut containers = Vec::with_capacity(CONTAINERS);
    for _ in 0..CONTAINERS {
        containers.push(host.add_container().await?);
    }
    wait_until("every container's endpoint", PATIENCE, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match status.endpoints.len() {
            CONTAINERS => Ok(()),
            seen => Err(format!("{seen} endpoints")),
        }
    })
    .await?;
    figures.extend(watch(host, CONTAINERS).await?);
    ensure!(
        host.is_running(Daemon::Agent) && host.is_running(Daemon::Runtime),
        "a daemon has ended:\n{}",
        host.describe()
    );
    Ok(figures)
}

/// What both daemons take while nothing happens.
async fn watch(host: &Host, containers: usize) -> anyhow::Result<Vec<Figure>> {
    let usage = |daemon| -> anyhow::Result<Usage> {
        Usage::of(host.pid(daemon).context("it is not running")?)
    };
    let both = [Daemon::Agent, Daemon::Runtime];
    // What led here may still be echoing.
    tokio::time::sleep(SETTLED).await;
    let before = both.map(usage);
    tokio::time::sleep(WATCHED).await;
    let (mut share, mut waits) = (0.0, 0.0);
    let mut figures = Vec::new();
    for (daemon, before) in both.into_iter().zip(before) {
        let (before, after) = (before?, usage(daemon)?);
        share += after.cores_since(&before) * 100.0;
        waits += after.waits_since(&before);
        let megabytes = f64::from(u32::try_from(after.resident / 1000)?) / 1000.0;
        figures.push(quantile(
            format!(
                "{} idle, {PEERS} peers, {containers} containers, resident memory",
                daemon.binary()
            ),
            "MB",
            Some(20.0),
            &[megabytes],
            50,
        )?);
    }
    // A container's neighbour entries age, and the kernel tells of it.
    let goal = |goal| (containers == 0).then_some(goal);
    let idle = format!("agent and runtime idle, {PEERS} peers, {containers} containers");
    figures.push(quantile(
        format!("{idle}, share of a core"),
        "%",
        goal(0.1),
        &[share],
        50,
    )?);
    figures.push(quantile(
        format!("{idle}, wake-ups a second"),
        "",
        goal(2.0),
        &[waits],
        50,
    )?);
    Ok(figures)
}
