//! How fast the runtime leases addresses, as its callers see it: on the socket, each written to the disk
//! before the answer.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, bail};
use mesh_client::{
    Client,
    mesh::{AllocateAddressRequest, Owner},
};
use mesh_proto::quilt::{ConfigureNodeSubnetRequest, quilt_runtime_client::QuiltRuntimeClient};
use mesh_testbed::{DaemonOptions, Host, Testbed};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    figure::{Figure, microseconds, quantile},
    node::fresh_testbed,
};

/// Callers at the same time.
const CALLERS: usize = 64;

/// Pairs of calls that each of them makes.
const PAIRS: usize = 1000;

/// Leases that a half full pool of a /16 holds.
const HALF_FULL: usize = 32_767;

/// How often two pools take turns.
const ROUNDS: usize = 20;

/// A node, with its state directory on a file system of choice.
struct Node {
    testbed: Testbed,
    /// Removed after the node.
    _state: TempDir,
}

impl Node {
    async fn start(state: &Path, options: DaemonOptions, subnet: &str) -> anyhow::Result<Self> {
        let state = TempDir::with_prefix_in("quilt-leases-", state)
            .with_context(|| format!("cannot use {}", state.display()))?;
        let testbed = fresh_testbed().await?;
        let host = &testbed.hosts()[0];
        let options = options.args(["--state-dir".into(), state.path().as_os_str().to_owned()]);
        host.start_runtime(&options).await?;
        let answer = QuiltRuntimeClient::new(host.runtime_channel().await?)
            .configure_node_subnet(ConfigureNodeSubnetRequest {
                subnet: subnet.into(),
            })
            .await?
            .into_inner();
        if !answer.success {
            bail!("ConfigureNodeSubnet is refused: {}", answer.error);
        }
        Ok(Self {
            testbed,
            _state: state,
        })
    }

    fn host(&self) -> &Host {
        &self.testbed.hosts()[0]
    }
}

pub(crate) async fn measure(calls: u16) -> anyhow::Result<Vec<Figure>> {
    let memory = PathBuf::from("/dev/shm");
    let disk = std::env::temp_dir();
    let mut figures = Vec::new();
    for (name, state, latency) in [("tmpfs", &memory, Some(1000.0)), ("disk", &disk, None)] {
        let node = Node::start(state, DaemonOptions::new(), "10.42.1.0/24").await?;
        let samples = one_by_one(node.host(), calls.into()).await?;
        let what = format!("AllocateAddress, one caller, {name}, p50");
        figures.push(quantile(what, "µs", latency, &samples, 50)?);
        let (rate_measured, samples) = many_at_once(node.host()).await?;
        figures.push(Figure {
            name: format!("leases and releases, {CALLERS} callers, {name}"),
            unit: "1/s",
            // At least 2,000 on a disk: goals of figures are upper bounds.
            goal: None,
            measured: rate_measured,
            smallest: rate_measured,
            largest: rate_measured,
            samples: 1,
        });
        let what = format!("AllocateAddress, {CALLERS} callers, {name}, p50");
        figures.push(quantile(what, "µs", None, &samples, 50)?);
    }
    figures.push(large_pool(&memory, calls.into()).await?);
    Ok(figures)
}

/// A pool of 65,534 addresses, half of them held, beside one of 254: the ratio of the medians.
async fn large_pool(state: &Path, calls: usize) -> anyhow::Result<Figure> {
    let args = ["--cluster-cidr", "10.0.0.0/8", "--node-prefix", "16"];
    let large = Node::start(state, DaemonOptions::new().args(args), "10.42.0.0/16").await?;
    let small = Node::start(state, DaemonOptions::new(), "10.42.1.0/24").await?;
    fill(large.host(), HALF_FULL).await?;
    fill(small.host(), 127).await?;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let of_large = median(one_by_one(large.host(), calls / ROUNDS).await?);
        let of_small = median(one_by_one(small.host(), calls / ROUNDS).await?);
        ratios.push(of_large / of_small);
    }
    let what = "AllocateAddress, pool of 65,534 to one of 254, both half full";
    quantile(what, "×", Some(1.0), &ratios, 50)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

fn owner(container: String) -> Owner {
    Owner {
        engine: "bench".into(),
        network: "quilt".into(),
        container,
        interface: "eth0".into(),
    }
}

async fn allocate(client: &mut Client, container: String) -> anyhow::Result<String> {
    let answer = client
        .allocate(AllocateAddressRequest {
            owner: Some(owner(container)),
            ..Default::default()
        })
        .await?;
    Ok(answer.lease.context("no lease in the answer")?.address)
}

/// Leases and releases by one caller: how long each lease took, in µs.
async fn one_by_one(host: &Host, calls: usize) -> anyhow::Result<Vec<f64>> {
    let mut client = Client::connect(&host.runtime_socket()).await?;
    let mut samples = Vec::with_capacity(calls);
    for _ in 0..calls {
        let started = Instant::now();
        allocate(&mut client, "one".into()).await?;
        samples.push(microseconds(started.elapsed()));
        client.release(owner("one".into())).await?;
    }
    Ok(samples)
}

/// Leases and releases by many callers, each of which holds one address or two: calls a second, and how
/// long each lease took. An address that two have at once is an error.
async fn many_at_once(host: &Host) -> anyhow::Result<(f64, Vec<f64>)> {
    let held: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let mut callers = JoinSet::new();
    let started = Instant::now();
    for number in 0..CALLERS {
        let (socket, held) = (host.runtime_socket(), Arc::clone(&held));
        callers.spawn(async move { caller(&socket, number, &held).await });
    }
    let mut samples = Vec::new();
    while let Some(ended) = callers.join_next().await {
        samples.extend(ended??);
    }
    let calls = CALLERS * (2 * PAIRS);
    Ok((calls as f64 / started.elapsed().as_secs_f64(), samples))
}

async fn caller(
    socket: &Path,
    number: usize,
    held: &Mutex<BTreeSet<String>>,
) -> anyhow::Result<Vec<f64>> {
    let mut client = Client::connect(socket).await?;
    let name = |turn: usize| format!("c{number}-{}", turn % 2);
    let mut samples = Vec::with_capacity(PAIRS);
    let mut before: Option<String> = None;
    for turn in 0..PAIRS {
        let started = Instant::now();
        let address = allocate(&mut client, name(turn)).await?;
        samples.push(microseconds(started.elapsed()));
        if !swap(held, before.as_ref(), Some(&address)) {
            bail!("{address} is leased to two at once");
        }
        if before.replace(address).is_some() {
            client.release(owner(name(turn + 1))).await?;
        }
    }
    swap(held, before.as_ref(), None);
    client.release(owner(name(PAIRS + 1))).await?;
    Ok(samples)
}

/// Takes the place of one address by another; `false` if somebody has that one.
fn swap(held: &Mutex<BTreeSet<String>>, before: Option<&String>, now: Option<&String>) -> bool {
    // A set of addresses is whole whoever panicked while holding it.
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = before {
        held.remove(before);
    }
    now.is_none_or(|now| held.insert(now.clone()))
}

/// Leases so many addresses for good.
async fn fill(host: &Host, count: usize) -> anyhow::Result<()> {
    let mut callers = JoinSet::new();
    for first in 0..CALLERS {
        let socket = host.runtime_socket();
        callers.spawn(async move {
            let mut client = Client::connect(&socket).await?;
            for number in (first..count).step_by(CALLERS) {
                allocate(&mut client, format!("held-{number}")).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}
