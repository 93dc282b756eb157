//! What our networks cost `docker run` and `podman run`: whole commands as a user types them, in turns with a network of the
//! engine's own on the same host.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use ipnet::Ipv4Net;
use mesh_testbed::{Distribution, Engine, Host};

use crate::{
    figure::{Figure, difference, milliseconds, quantile},
    node::Node,
};

/// How often both networks are used before anything is measured: caches fill, and an engine makes its bridge with the first
/// container.
const WARM_UP: u16 = 3;

/// The time between two commands. What engine, runtime and kernel still do after one is no part of the next, nor of the other
/// network's: programs are attached a fifth of a second after a container has started.
const BETWEEN: Duration = Duration::from_millis(500);

/// The most that `run` may take longer with our network, in ms.
const LONGER: f64 = 50.0;

/// Docker's network that is measured beside ours: its daemon has no default one here. The subnet is of the range for benchmarks
/// (RFC 2544).
const STOCK: &str = "stock";
const STOCK_SUBNET: &str = "198.18.0.0/24";

/// That which Podman makes by itself, without names as ours is.
const DEFAULT: &str = "podman";
const DEFAULT_SUBNET: &str = "10.88.0.0/16";

/// Ours, and the subnet of its node.
const OURS: &str = "quilt";
const OUR_SUBNET: &str = "10.42.1.0/24";

/// The container that comes and goes.
const CONTAINER: &str = "one";

/// How often, and of which engines.
#[derive(Debug, clap::Args)]
pub(crate) struct EnginesOptions {
    /// Print the figures as one JSON document
    #[arg(long, env = "QUILT_MESH_JSON")]
    pub(crate) json: bool,

    /// How many containers of each network are started and removed, one after the other
    #[arg(long, env = "QUILT_MESH_RUNS", default_value_t = 20, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    runs: u16,

    /// The engines to measure
    #[arg(long, env = "QUILT_MESH_ENGINE", value_enum, value_delimiter = ',', value_name = "ENGINE",
          default_values_t = [Kind::Docker, Kind::Podman])]
    engine: Vec<Kind>,

    /// The plugin for Podman's netavark; without, the one beside the daemons
    #[arg(long, env = "QUILT_MESH_PLUGIN", value_name = "PATH")]
    plugin: Option<PathBuf>,
}

/// An engine with a network of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Docker, unpacked or installed on this machine, over quilt-docker
    Docker,
    /// Podman of the distribution that QUILT_MESH_DISTRIBUTION names, over quilt-netavark
    Podman,
}

impl Kind {
    /// The driver of ours that it has.
    fn driver(self) -> &'static str {
        match self {
            Self::Docker => "quilt-docker",
            Self::Podman => "quilt-netavark",
        }
    }

    /// Removes [`CONTAINER`] at once: `sleep` would not end by being asked, for which Podman waits longer than Docker.
    fn removal(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["rm", "--force", CONTAINER],
            Self::Podman => &["rm", "--force", "--time", "0", CONTAINER],
        }
    }

    /// The engine on a host whose runtime runs, with a network of ours and one of its own.
    async fn start(self, host: &Host, plugin: Option<&PathBuf>) -> anyhow::Result<Engine> {
        match self {
            Self::Docker => {
                let engine = Engine::docker_over_quilt_docker(host).await?;
                let create = ["network", "create", "--driver", "bridge"];
                engine.run(&[&create[..], &["--subnet", STOCK_SUBNET, STOCK]].concat())?;
                Ok(engine)
            }
            Self::Podman => {
                let engine = Engine::podman_of(&Distribution::chosen()?, host).await?;
                match plugin {
                    None => engine.install_quilt_netavark()?,
                    Some(plugin) => install(&engine, host, plugin)?,
                };
                engine.run(&["network", "create", "--driver", "quilt", OURS])?;
                Ok(engine)
            }
        }
    }
}

/// Installs a plugin that lies where the engine does not see it.
fn install(engine: &Engine, host: &Host, plugin: &PathBuf) -> anyhow::Result<String> {
    // What is in a host's directory is there for its engine as well.
    let seen = host.dir().join("quilt-netavark");
    fs::copy(plugin, &seen).with_context(|| format!("cannot copy {}", plugin.display()))?;
    Ok(engine.shell(&format!("'{}' install", seen.display()))?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// By our driver.
    Ours,
    /// By the engine's driver `bridge`.
    Stock,
}

impl Network {
    /// Its name and its subnet.
    fn of(self, kind: Kind) -> (&'static str, &'static str) {
        match (self, kind) {
            (Self::Ours, _) => (OURS, OUR_SUBNET),
            (Self::Stock, Kind::Docker) => (STOCK, STOCK_SUBNET),
            (Self::Stock, Kind::Podman) => (DEFAULT, DEFAULT_SUBNET),
        }
    }
}

/// What the commands for one network took, in ms, in their order.
#[derive(Debug, Default)]
struct Samples {
    run: Vec<f64>,
    remove: Vec<f64>,
}

impl Samples {
    fn add(&mut self, took: [Duration; 2]) {
        let [run, remove] = took.map(milliseconds);
        self.run.push(run);
        self.remove.push(remove);
    }
}

/// Measures each of the engines on a host of its own.
pub(crate) async fn measure(options: &EnginesOptions) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kind in &options.engine {
        let node = Node::start().await?;
        node.sync(1, Vec::new()).await?;
        let engine = kind.start(node.host(), options.plugin.as_ref()).await?;
        eprintln!(
            "{} containers of {} in each of two networks",
            options.runs,
            engine.name()
        );
        figures.extend(measure_engine(*kind, &engine, options.runs).await?);
    }
    Ok(figures)
}

async fn measure_engine(kind: Kind, engine: &Engine, runs: u16) -> anyhow::Result<Vec<Figure>> {
    let (mut ours, mut stock) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + runs {
        let mut turns = [Network::Ours, Network::Stock];
        // What the one leaves to be done does not always fall to the other.
        if round % 2 == 1 {
            turns.reverse();
        }
        for network in turns {
            let took = one(kind, engine, network, round < WARM_UP).await?;
            match network {
                _ if round < WARM_UP => {}
                Network::Ours => ours.add(took),
                Network::Stock => stock.add(took),
            }
        }
    }
    figures(engine.name(), kind.driver(), &ours, &stock)
}

/// Starts a container and removes it, and returns how long each took.
async fn one(
    kind: Kind,
    engine: &Engine,
    network: Network,
    look: bool,
) -> anyhow::Result<[Duration; 2]> {
    let (name, subnet) = network.of(kind);
    let run = || engine.run_detached(CONTAINER, &["--network", name]);
    let ran = timed(run).await?;
    if look {
        has_address(engine, subnet)?;
    }
    let removed = timed(|| engine.run(kind.removal())).await?;
    Ok([ran, removed])
}

async fn timed(command: impl FnOnce() -> mesh_testbed::Result<String>) -> anyhow::Result<Duration> {
    tokio::time::sleep(BETWEEN).await;
    let started = Instant::now();
    command()?;
    Ok(started.elapsed())
}

/// Sees that what is measured is what it is called: the container has one address, of this subnet.
fn has_address(engine: &Engine, subnet: &str) -> anyhow::Result<()> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    let said = engine.run(&["inspect", "--format", format, CONTAINER])?;
    let address: Option<Ipv4Addr> = said.trim().parse().ok();
    let subnet: Ipv4Net = subnet.parse()?;
    match address.is_some_and(|address| subnet.contains(&address)) {
        true => Ok(()),
        false => bail!("a container has the addresses {said:?} and not one of {subnet}"),
    }
}

fn figures(
    engine: &str,
    driver: &str,
    ours: &Samples,
    stock: &Samples,
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (command, ours, stock, goal) in [
        ("run", &ours.run, &stock.run, Some(LONGER)),
        ("rm", &ours.remove, &stock.remove, None),
    ] {
        for (driver, samples) in [(driver, ours), ("bridge", stock)] {
            for per_cent in [50, 90] {
                let name = format!("{engine} {command}, {driver}, p{per_cent}");
                figures.push(quantile(name, "ms", None, samples, per_cent)?);
            }
        }
        let name = format!("{engine} {command}, {driver} longer than bridge, medians");
        figures.push(difference(name, "ms", goal, ours, stock)?);
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_name_engine_command_and_driver_and_only_a_start_has_a_goal() {
        let samples = |run: f64| Samples {
            run: vec![run; 3],
            remove: vec![run / 2.0; 3],
        };
        let figures = figures("docker", "quilt-docker", &samples(700.0), &samples(660.0)).unwrap();
        assert_eq!(figures.len(), 10);
        let goals: Vec<_> = figures.iter().filter(|it| it.goal.is_some()).collect();
        assert_eq!(
            goals[0].name,
            "docker run, quilt-docker longer than bridge, medians"
        );
        assert_eq!((goals.len(), goals[0].measured), (1, 40.0));
    }
}
