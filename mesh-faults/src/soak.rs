//! Nodes and containers come and go under traffic for a long time; what the daemons hold at
//! the end must be what they held at the beginning.

mod plot;
mod samples;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mesh_layout::map_names;
use mesh_testbed::{Container, Daemon, wait_reachable};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    faults::come_and_go_once,
    mesh::Mesh,
    options::SoakOptions,
    pace::Pace,
    report::Machine,
    scene::{Scene, Settings},
    state::{self, summary},
    traffic::Traffic,
};
use samples::{Samples, Verdict};

const PATIENCE: Duration = Duration::from_secs(20);
/// Containers that come and go in one turn.
const CONTAINERS: usize = 4;

/// Runs the soak test and prints its table.
pub(crate) async fn run(options: &SoakOptions) -> anyhow::Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let machine = Machine::here();
    let started = Instant::now();
    let end = started + options.time();
    let mut chance = StdRng::seed_from_u64(seed);
    let mut mesh = Mesh::build(None, Pace::REAL)
        .await
        .context("cannot build a mesh")?;
    let mut samples = Samples::default();
    let mut lost = 0;
    let mut sent = 0;
    let mut turns = 0;
    let mut broken = Vec::new();
    println!("running 1 test");
    samples.add(started.elapsed(), measure(&mesh)?);
    while Instant::now() < end && broken.is_empty() {
        let traffic = Traffic::start(&mesh.containers, Pace::REAL).await?;
        let mut scene = Scene::new(mesh, traffic, Settings::for_soak(seed));
        let turned = turn(&mut scene, &mut chance).await;
        let leftovers = scene.mesh.whole_within(PATIENCE).await?;
        let fates = scene.traffic.stop(PATIENCE).await?;
        mesh = scene.mesh;
        for flow in &fates.flows {
            sent += flow.sent;
            lost += flow
                .outages
                .iter()
                .map(|outage| outage.packets)
                .sum::<u64>();
        }
        for (pair, report) in &fates.connections {
            if !report.is_intact() {
                broken.push(format!("the TCP connection {} failed", pair.names));
            }
        }
        broken.extend(turned.err().map(|error| format!("{error:#}")));
        if !leftovers.is_empty() {
            broken.push(format!("not as before: {}", summary(&leftovers)));
        }
        turns += 1;
        samples.add(started.elapsed(), measure(&mesh)?);
        eprintln!(
            "{:7.1} s  turn {turns}: {lost} of {sent} packets lost",
            started.elapsed().as_secs_f64()
        );
    }
    if lost > 0 {
        broken.push(format!("{lost} of {sent} packets lost"));
    }
    let verdicts = samples.verdicts();
    broken.extend(
        verdicts
            .iter()
            .filter(|verdict| !verdict.holds())
            .map(Verdict::to_string),
    );
    println!(
        "\n{turns} turns in {:.0} s; {lost} of {sent} packets lost; seed {seed}\n{}\n",
        started.elapsed().as_secs_f64(),
        machine.describe()
    );
    println!("{}", samples::table(&verdicts));
    for line in &broken {
        println!("soak FAILED: {line}");
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, plot::svg(&samples))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.json {
        std::fs::write(path, samples.json(&broken)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (passed, failed, word) = match broken.is_empty() {
        true => (1, 0, "ok"),
        false => (0, 1, "FAILED"),
    };
    println!(
        "test soak ... {word}\n\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; \
         0 measured; 0 filtered out; finished in {:.2}s\n\n{passed} passed, {failed} failed",
        started.elapsed().as_secs_f64()
    );
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Containers come and go on hosts drawn by chance, and the fourth node joins and leaves.
async fn turn(scene: &mut Scene, chance: &mut StdRng) -> anyhow::Result<()> {
    let mut guests: Vec<Container> = Vec::new();
    for _ in 0..CONTAINERS {
        let hosts = scene.mesh.hosts();
        let host = &hosts[chance.random_range(0..hosts.len())];
        let container = host.add_container().await?;
        let others = scene.mesh.containers.iter();
        let remote = others.filter(|other| other.host_netns().name() != host.netns().name());
        for other in remote {
            wait_reachable(other.netns(), container.address(), PATIENCE).await?;
        }
        guests.push(container);
    }
    come_and_go_once(scene).await?;
    drop(guests);
    Ok(())
}

/// What the daemons of the mesh hold now, and how many entries the maps have.
fn measure(mesh: &Mesh) -> anyhow::Result<Vec<(String, f64)>> {
    let mut figures = Vec::new();
    for host in mesh.hosts() {
        for daemon in [Daemon::Runtime, Daemon::Agent] {
            let Some(pid) = host.pid(daemon) else {
                bail!("{} on {} is not running", daemon.binary(), host.name());
            };
            let name = format!("{} {}", host.name(), daemon.binary());
            figures.push((
                samples::memory_of(&name),
                mebibytes(host.resident_bytes(daemon)?),
            ));
            figures.push((samples::descriptors_of(&name), descriptors(pid)?));
        }
        for map in [map_names::PEERS, map_names::VTEPS, map_names::ENDPOINTS] {
            let name = format!("{} map {map}", host.name());
            figures.push((samples::entries_of(&name), count(state::entries(host, map))));
        }
    }
    let control = mesh.testbed.control();
    let Some(pid) = control.pid() else {
        bail!("the control plane is not running");
    };
    let name = "quilt-mesh-control";
    figures.push((
        samples::memory_of(name),
        mebibytes(control.resident_bytes()?),
    ));
    figures.push((samples::descriptors_of(name), descriptors(pid)?));
    Ok(figures)
}

fn descriptors(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/fd");
    let entries = std::fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?;
    Ok(count(entries.count()))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people, far below 2^52"
)]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people, far below 2^52"
)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
