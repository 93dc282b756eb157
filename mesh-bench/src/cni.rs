//! How long `quilt-cni` takes to add a container and to delete it, where there are many already: whole processes, as an
//! engine runs them. Beside it the CNI project's `bridge` with `host-local`, if they are installed.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mesh_testbed::{Host, NetNs, cni_plugins};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    figure::{Figure, milliseconds, quantile},
    node::Node,
};

/// How many are started at a time before anything is measured.
const AT_A_TIME: usize = 16;

/// The time between two calls. What the kernel still has to do after a deletion is no part of the next call, nor of another
/// plugin's.
const BETWEEN: Duration = Duration::from_millis(100);

/// What is measured, and with how many containers around it.
#[derive(Debug, clap::Args)]
pub(crate) struct CniOptions {
    /// Print the figures as one JSON document
    #[arg(long, env = "QUILT_MESH_JSON")]
    pub(crate) json: bool,

    /// Containers that are there already
    #[arg(long, env = "QUILT_MESH_CONTAINERS", default_value_t = 200, value_name = "N",
          value_parser = clap::value_parser!(u16).range(0..=240))]
    containers: u16,

    /// The plugin to measure; without, the one beside this program
    #[arg(long, env = "QUILT_MESH_PLUGIN", value_name = "PATH")]
    plugin: Option<PathBuf>,

    /// How many are added and deleted, one after the other
    #[arg(long, env = "QUILT_MESH_RUNS", default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    runs: u16,
}

/// A plugin with its network.
struct Plugin {
    program: PathBuf,
    network: Value,
}

impl Plugin {
    /// Ours, with the runtime of a host.
    fn ours(host: &Host, program: Option<&PathBuf>) -> anyhow::Result<Self> {
        Ok(Self {
            program: match program {
                Some(program) => program.clone(),
                None => env::current_exe()?.with_file_name("quilt-cni"),
            },
            network: json!({
                "cniVersion": "1.0.0",
                "name": "quilt",
                "type": "quilt-cni",
                "engine": "bench",
                "socket": host.runtime_socket(),
            }),
        })
    }

    /// The CNI project's, with a bridge of its own.
    fn stock(folder: &Path, host: &Host) -> Self {
        Self {
            program: folder.join("bridge"),
            network: json!({
                "cniVersion": "1.0.0",
                "name": "stock",
                "type": "bridge",
                "bridge": "stock0",
                "ipam": {
                    "type": "host-local",
                    "dataDir": host.dir().join("cni"),
                    "ranges": [[{ "subnet": "198.18.0.0/20" }]],
                },
            }),
        }
    }

    /// One call, and how long it took in ms.
    fn call(&self, host: &Host, command: &str, container: &NetNs) -> anyhow::Result<f64> {
        let mut plugin = host.netns().command(&self.program);
        plugin
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container.name())
            .env("CNI_NETNS", container.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.program.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let input = self.network.to_string();
        let started = Instant::now();
        let mut running = plugin
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut to = running.stdin.take().context("no standard input")?;
        to.write_all(input.as_bytes())?;
        drop(to);
        let output = running.wait_with_output()?;
        let took = milliseconds(started.elapsed());
        if !output.status.success() {
            bail!("{command}: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(took)
    }
}

/// Measures both, in turns.
pub(crate) async fn measure(options: &CniOptions) -> anyhow::Result<Vec<Figure>> {
    let node = Arc::new(Node::start().await?);
    node.sync(1, Vec::new()).await?;
    let ours = Arc::new(Plugin::ours(node.host(), options.plugin.as_ref())?);
    let stock = cni_plugins()
        .ok()
        .map(|folder| Plugin::stock(&folder, node.host()));
    eprintln!("{} containers", options.containers);
    let (others, seconds) = fill(&node, &ours, options.containers.into()).await?;
    eprintln!("{} are added and deleted", options.runs);
    let (mut added, mut deleted) = (Vec::new(), Vec::new());
    let (mut stock_added, mut stock_deleted) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let container = NetNs::new("one").await?;
        let one = async |plugin: &Plugin, command| {
            tokio::time::sleep(BETWEEN).await;
            plugin.call(node.host(), command, &container)
        };
        added.push(one(&ours, "ADD").await?);
        deleted.push(one(&ours, "DEL").await?);
        if let Some(stock) = &stock {
            stock_added.push(one(stock, "ADD").await?);
            stock_deleted.push(one(stock, "DEL").await?);
        }
    }
    let count = options.containers;
    let mut figures = Vec::new();
    let mut add = |what: String, goal, samples: &[f64]| -> anyhow::Result<()> {
        for per_cent in [50, 99] {
            let goal = Some(goal).flatten().filter(|_| per_cent == 50);
            let name = format!("{what}, {count} containers there, p{per_cent}");
            figures.push(quantile(name, "ms", goal, samples, per_cent)?);
        }
        Ok(())
    };
    add("ADD".to_owned(), Some(15.0), &added)?;
    add("DEL".to_owned(), Some(10.0), &deleted)?;
    if stock.is_some() {
        add("bridge and host-local: ADD".to_owned(), None, &stock_added)?;
        add(
            "bridge and host-local: DEL".to_owned(),
            None,
            &stock_deleted,
        )?;
    }
    if count > 0 {
        figures.push(Figure {
            name: format!("{count} containers added, {AT_A_TIME} at a time"),
            unit: "s",
            goal: None,
            measured: seconds,
            smallest: seconds,
            largest: seconds,
            samples: 1,
        });
    }
    drop(others);
    Ok(figures)
}

/// Adds so many containers, and says how long that took, in s.
async fn fill(
    node: &Arc<Node>,
    plugin: &Arc<Plugin>,
    count: usize,
) -> anyhow::Result<(Vec<NetNs>, f64)> {
    let mut containers = Vec::new();
    for _ in 0..count {
        containers.push(NetNs::new("web").await?);
    }
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut adding = JoinSet::new();
    let started = Instant::now();
    for container in containers {
        let (node, plugin, places) = (Arc::clone(node), Arc::clone(plugin), Arc::clone(&places));
        adding.spawn(async move {
            let place = places.acquire_owned().await?;
            let add = move || {
                let _place = place;
                plugin.call(node.host(), "ADD", &container)?;
                Ok::<_, anyhow::Error>(container)
            };
            tokio::task::spawn_blocking(add).await?
        });
    }
    let mut added = Vec::new();
    while let Some(container) = adding.join_next().await {
        added.push(container??);
    }
    Ok((added, started.elapsed().as_secs_f64()))
}
