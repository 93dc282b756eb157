//! A mesh to break: hosts with real daemons, a container on each, and what its kernels show
//! while all is well.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use anyhow::bail;
use ipnet::Ipv4Net;
use mesh_testbed::{
    Container, Daemon, DaemonOptions, Deadline, Host, Testbed, Watch, wait_reachable,
};

use crate::{
    pace::Pace,
    state::{HostState, Observer, difference},
};

/// Hosts of the mesh; the first is the victim of what happens to one host.
pub(crate) const HOSTS: usize = 3;
/// A silent node is down after this.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that the control plane does not list is forgotten after this.
pub(crate) const ABSENT_GRACE: Duration = Duration::from_secs(5);

const PATIENCE: Duration = Duration::from_secs(30);

/// The mesh. Dropping it removes everything.
pub(crate) struct Mesh {
    pub(crate) testbed: Testbed,
    /// One for each host of the mesh, in order.
    pub(crate) containers: Vec<Container>,
    pub(crate) watches: Vec<Watch>,
    pub(crate) observers: Vec<Observer>,
    /// What each host's kernel shows while all is well.
    pub(crate) baseline: Vec<HostState>,
    nodes: Vec<String>,
    /// How long it may take to come to rest.
    patience: Duration,
}

/// Options of the control plane: short timeouts.
fn control_options(pace: Pace) -> DaemonOptions {
    DaemonOptions::new()
        .args(["--node-timeout".to_owned(), at(pace, NODE_TIMEOUT)])
        .args(["--shutdown-timeout", "2s"])
}

/// Options of the agents: short intervals.
pub(crate) fn agent_options(pace: Pace) -> DaemonOptions {
    let mut options = DaemonOptions::new();
    for (option, milliseconds) in [
        ("--heartbeat-interval", 300),
        ("--sync-interval", 500),
        ("--request-timeout", 1000),
        ("--connect-timeout", 500),
    ] {
        let time = Duration::from_millis(milliseconds);
        options = options.args([option.to_owned(), at(pace, time)]);
    }
    options.args(["--absent-peer-grace".to_owned(), at(pace, ABSENT_GRACE)])
}

/// Options of the agent of a node that comes and leaves again for good.
pub(crate) fn visitor_options(pace: Pace) -> DaemonOptions {
    agent_options(pace).arg("--leave")
}

/// A time as the daemons' options take it.
fn at(pace: Pace, time: Duration) -> String {
    format!("{}ms", pace.time(time).as_millis())
}

/// Options of the runtimes: the defaults.
pub(crate) fn runtime_options() -> DaemonOptions {
    DaemonOptions::new()
}

/// Options of control plane, runtime and agent, with the binaries of another build if one is
/// given. `upgraded` is a mesh of two builds, whose agents stay registered when they are
/// stopped: one of the builds may not wait for a node that deregisters. It has no credentials,
/// which one of the builds may not know.
pub(crate) fn options(
    other_build: Option<&Path>,
    upgraded: bool,
    pace: Pace,
) -> [DaemonOptions; 3] {
    let (control, agent) = (control_options(pace), agent_options(pace));
    let (control, agent) = match upgraded {
        true => (control.plain(), agent.plain().arg("--stay-registered")),
        false => (control, agent),
    };
    [
        (control, "quilt-mesh-control"),
        (runtime_options(), Daemon::Runtime.binary()),
        (agent, Daemon::Agent.binary()),
    ]
    .map(|(options, name)| match other_build {
        Some(directory) => options.binary(directory.join(name)),
        None => options,
    })
}

impl Mesh {
    /// Makes the hosts, and one more that stays empty until something joins; starts the
    /// daemons and containers, and waits until everybody reaches everybody.
    ///
    /// The binaries are those of `other_build`, if one is given.
    pub(crate) async fn build(other_build: Option<&Path>, pace: Pace) -> anyhow::Result<Self> {
        let [control, runtime, agent] = options(other_build, other_build.is_some(), pace);
        let patience = pace.time(PATIENCE);
        let testbed = Testbed::builder().hosts(HOSTS + 1).build().await?;
        let hosts = &testbed.hosts()[..HOSTS];
        for host in hosts {
            host.spawn(Daemon::Runtime, &runtime)?;
        }
        testbed.control().start(&control).await?;
        for host in hosts {
            host.wait_serving(patience).await?;
            host.spawn(Daemon::Agent, &agent)?;
            host.wait_joined(patience).await?;
        }
        testbed.wait_converged(patience).await?;
        let mut containers = Vec::new();
        for host in hosts {
            containers.push(host.add_container().await?);
        }
        let cluster = Ipv4Net::new(Ipv4Addr::new(10, 42, 0, 0), 16)?;
        let watches = hosts
            .iter()
            .map(|host| Watch::start(host, cluster))
            .collect::<Result<_, _>>()?;
        let observers = hosts
            .iter()
            .map(Observer::of)
            .collect::<anyhow::Result<_>>()?;
        let mut mesh = Self {
            testbed,
            containers,
            watches,
            observers,
            baseline: Vec::new(),
            nodes: Vec::new(),
            patience,
        };
        mesh.rebase().await?;
        Ok(mesh)
    }

    /// The host that things happen to.
    pub(crate) fn victim(&self) -> &Host {
        &self.testbed.hosts()[0]
    }

    /// All hosts of the mesh.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.testbed.hosts()[..HOSTS]
    }

    /// The host outside the mesh, for nodes that come and go.
    pub(crate) fn spare(&self) -> &Host {
        &self.testbed.hosts()[HOSTS]
    }

    /// Takes what the kernels show now for what they have to show, once everybody reaches
    /// everybody and it has stopped to change.
    pub(crate) async fn rebase(&mut self) -> anyhow::Result<()> {
        for from in &self.containers {
            for to in &self.containers {
                wait_reachable(from.netns(), to.address(), self.patience).await?;
            }
        }
        let deadline = Deadline::after(self.patience);
        loop {
            let first = self.observe().await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let second = self.observe().await?;
            let ready = self.unready().await?;
            let complete = self
                .containers
                .iter()
                .zip(&second)
                .all(|(container, state)| {
                    let entry = format!("map endpoints {} ", container.address());
                    state.iter().any(|fact| fact.starts_with(&entry))
                });
            if first == second && complete && ready.is_empty() {
                self.nodes = self.nodes_listed().await?;
                self.baseline = second;
                return Ok(());
            }
            if deadline.pause().await.is_err() {
                bail!("the mesh does not come to rest: {ready:?}; endpoints complete: {complete}");
            }
        }
    }

    async fn observe(&self) -> anyhow::Result<Vec<HostState>> {
        let mut states = Vec::new();
        for observer in &self.observers {
            states.push(observer.observe().await?);
        }
        Ok(states)
    }

    /// Waits until everything is as it was, or says what is not.
    pub(crate) async fn whole_within(&self, within: Duration) -> anyhow::Result<Vec<String>> {
        let deadline = Deadline::after(within);
        loop {
            let differences = self.differences().await?;
            if differences.is_empty() || deadline.pause().await.is_err() {
                return Ok(differences);
            }
        }
    }

    /// What is not as it was while all was well.
    pub(crate) async fn differences(&self) -> anyhow::Result<Vec<String>> {
        let mut differences = self.unready().await?;
        for ((host, wanted), seen) in self
            .hosts()
            .iter()
            .zip(&self.baseline)
            .zip(self.observe().await?)
        {
            let of_host = difference(wanted, &seen);
            differences.extend(
                of_host
                    .into_iter()
                    .map(|it| format!("{}: {it}", host.name())),
            );
        }
        match self.nodes_listed().await {
            Ok(nodes) if nodes == self.nodes => {}
            Ok(nodes) => differences.push(format!(
                "the control plane lists {nodes:?} instead of {:?}",
                self.nodes
            )),
            Err(error) => differences.push(format!("control plane: {error:#}")),
        }
        Ok(differences)
    }

    /// What the runtimes themselves say is not well.
    async fn unready(&self) -> anyhow::Result<Vec<String>> {
        let mut unready = Vec::new();
        for host in self.hosts() {
            let name = host.name();
            let (status, peers) = match (host.status().await, host.peers().await) {
                (Ok(status), Ok(peers)) => (status, peers.peers),
                (Err(error), _) | (_, Err(error)) => {
                    unready.push(error.to_string());
                    continue;
                }
            };
            unready.extend(status.problems().iter().map(|it| format!("{name}: {it}")));
            if status.suspect_peers > 0 {
                unready.push(format!("{name}: {} suspect peers", status.suspect_peers));
            }
            if peers.len() != HOSTS - 1 {
                unready.push(format!("{name}: {} peers", peers.len()));
            }
            for peer in peers {
                if !peer.kernel_path_ready || !peer.fast_path_ready {
                    let subnet = peer.peer.unwrap_or_default().subnet;
                    unready.push(format!("{name}: the peer {subnet} is not ready"));
                }
            }
        }
        Ok(unready)
    }

    /// The nodes of this mesh as the control plane shows them, without what changes by itself.
    async fn nodes_listed(&self) -> anyhow::Result<Vec<String>> {
        let ours: Vec<&str> = self.hosts().iter().map(Host::name).collect();
        let mut nodes: Vec<String> = self
            .testbed
            .control()
            .nodes()
            .await?
            .into_iter()
            .filter(|node| ours.contains(&&*node.hostname))
            .map(|node| {
                format!(
                    "{} {} {} {}",
                    node.hostname, node.host_ip, node.subnet, node.status
                )
            })
            .collect();
        nodes.sort();
        Ok(nodes)
    }
}
