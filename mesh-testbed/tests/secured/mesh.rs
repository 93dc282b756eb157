//! Hosts with a container each, numbered packets between all of these both ways, and what becomes of packets and routes.

use std::time::Duration;

use ipnet::Ipv4Net;
use mesh_rest::{node::NodeEntry, status::Status};
use mesh_testbed::{
    BRIDGE, Container, ControlPlane, Daemon, DaemonOptions, Host, Signal, Testbed, UdpFlow,
    UdpFlowOptions, Watch, wait_until,
};

/// How long anything may take. Only a failing test waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A silent node is down after this.
const NODE_TIMEOUT_SECONDS: u64 = 3;

/// A node that the control plane does not list is forgotten after this.
const ABSENT_GRACE_SECONDS: u64 = 2;

/// Packets per second from each container to each other one: one every 5 ms.
const RATE: u32 = 200;

/// Packets of a flow that are more than all timeouts together.
const PAST_TIMEOUTS: u64 = (NODE_TIMEOUT_SECONDS + ABSENT_GRACE_SECONDS + 1) * 200;

/// A control plane that soon calls a silent node down.
pub(crate) fn control_options() -> DaemonOptions {
    DaemonOptions::new()
        .args([
            "--node-timeout".to_owned(),
            format!("{NODE_TIMEOUT_SECONDS}s"),
        ])
        .args(["--shutdown-timeout", "2s"])
}

/// Agents that beat and ask often.
pub(crate) fn agent_options() -> DaemonOptions {
    DaemonOptions::new()
        .args(["--heartbeat-interval", "300ms", "--sync-interval", "500ms"])
        .args([
            "--absent-peer-grace".to_owned(),
            format!("{ABSENT_GRACE_SECONDS}s"),
        ])
}

/// A mesh under traffic. What is dropped first stands first.
pub(crate) struct Mesh {
    flows: Vec<UdpFlow>,
    watches: Vec<Watch>,
    containers: Vec<Container>,
    pub(crate) testbed: Testbed,
}

impl Mesh {
    /// Starts so many hosts, and one more without daemons, and waits until there is traffic.
    pub(crate) async fn start(
        hosts: usize,
        control: &DaemonOptions,
        agent: &DaemonOptions,
    ) -> Self {
        let testbed = Testbed::builder().hosts(hosts + 1).build().await.unwrap();
        for host in &testbed.hosts()[..hosts] {
            host.spawn(Daemon::Runtime, &DaemonOptions::new()).unwrap();
        }
        testbed.control().start(control).await.unwrap();
        for host in &testbed.hosts()[..hosts] {
            host.wait_serving(DEADLINE).await.unwrap();
            host.spawn(Daemon::Agent, agent).unwrap();
            host.wait_joined(DEADLINE).await.unwrap();
        }
        testbed.wait_converged(DEADLINE).await.unwrap();
        let mut mesh = Self {
            flows: Vec::new(),
            watches: Vec::new(),
            containers: Vec::new(),
            testbed,
        };
        for index in 0..hosts {
            mesh.add_container(index).await;
        }
        mesh.watch();
        mesh
    }

    /// Adds the host that had no daemons.
    pub(crate) async fn grow(&mut self, agent: &DaemonOptions) {
        let newcomer = self.containers.len();
        let host = &self.testbed.hosts()[newcomer];
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.start_agent(agent).await.unwrap();
        self.testbed.wait_converged(DEADLINE).await.unwrap();
        let subnet = host.bridge_address(BRIDGE).await.unwrap().trunc();
        for watch in &self.watches {
            assert_eq!(watch.take_routes_removed().unwrap(), []);
            let set = watch.take_routes_set().unwrap();
            assert!(set.contains(&subnet), "{set:?}");
        }
        self.add_container(newcomer).await;
        self.watch();
    }

    async fn add_container(&mut self, index: usize) {
        let new = self.testbed.hosts()[index].add_container().await.unwrap();
        let options = UdpFlowOptions {
            rate: RATE,
            max_packets: u64::MAX,
            ..UdpFlowOptions::default()
        };
        for other in &self.containers {
            for (from, to) in [(&new, other), (other, &new)] {
                mesh_testbed::wait_reachable(from.netns(), to.address(), DEADLINE)
                    .await
                    .unwrap();
                let flow = UdpFlow::start(from.netns(), to.netns(), to.address(), options);
                self.flows.push(flow.unwrap());
            }
        }
        self.containers.push(new);
        self.flowing(100).await;
    }

    /// Counts changes of routes from now on.
    fn watch(&mut self) {
        let cluster: Ipv4Net = "10.42.0.0/16".parse().unwrap();
        let hosts = &self.hosts()[..self.containers.len()];
        self.watches = hosts
            .iter()
            .map(|host| Watch::start(host, cluster).unwrap())
            .collect();
    }

    pub(crate) fn hosts(&self) -> &[Host] {
        self.testbed.hosts()
    }

    pub(crate) fn control(&self) -> &ControlPlane {
        self.testbed.control()
    }

    /// Waits until so many more packets of each flow have arrived.
    pub(crate) async fn flowing(&self, more: u64) {
        let before: Vec<u64> = self.flows.iter().map(UdpFlow::arrived).collect();
        wait_until("traffic between all", DEADLINE, async || {
            let arrived: Vec<u64> = self.flows.iter().map(UdpFlow::arrived).collect();
            let mut pairs = arrived.iter().zip(&before);
            match pairs.all(|(now, before)| *now > before + more) {
                true => Ok(()),
                false => Err(format!("{arrived:?}")),
            }
        })
        .await
        .unwrap();
    }

    /// Waits until every timeout has passed, by the packets that arrive meanwhile.
    pub(crate) async fn outlast_timeouts(&self) {
        self.flowing(PAST_TIMEOUTS).await;
    }

    /// What the control plane lists once it has so many nodes that are up: name and subnet of each.
    pub(crate) async fn up(&self, count: usize) -> Vec<(String, String)> {
        wait_until("all nodes being up", DEADLINE, async || {
            let nodes = self.control().nodes().await;
            let nodes = nodes.map_err(|error| error.to_string())?;
            let up = |node: &&NodeEntry<'_>| node.status() == Some(Status::Up);
            match nodes.iter().filter(up).count() == count {
                true => Ok(subnets(&nodes)),
                false => Err(format!("{nodes:?}")),
            }
        })
        .await
        .unwrap()
    }

    /// Waits until the agents have said this so often in all.
    pub(crate) async fn each_said(&self, what: &str, times: usize) {
        for host in &self.hosts()[..self.containers.len()] {
            said(host, what, times).await;
        }
    }

    /// Ends the traffic: all of it has arrived, and no kernel was told of other routes.
    pub(crate) async fn lost_nothing(mut self) {
        for watch in &self.watches {
            assert_eq!(watch.take_routes_removed().unwrap(), []);
            assert_eq!(watch.take_routes_set().unwrap(), []);
        }
        for flow in self.flows.drain(..) {
            let report = flow.stop().await.unwrap();
            // Those that were waited for at the beginning, and what followed.
            assert!(report.sent > 100, "{report:?}");
            assert_eq!(report.sent, report.received, "{report:?}");
        }
    }
}

/// Name and subnet of each.
pub(crate) fn subnets(nodes: &[NodeEntry<'_>]) -> Vec<(String, String)> {
    let mut subnets: Vec<_> = nodes
        .iter()
        .map(|node| (node.hostname.to_string(), node.subnet.to_string()))
        .collect();
    subnets.sort();
    subnets
}

/// How often a host's agent has said this.
pub(crate) fn count(host: &Host, what: &str) -> usize {
    let log = std::fs::read_to_string(host.log(Daemon::Agent)).unwrap();
    log.matches(what).count()
}

/// Waits until a host's agent has said this so often in all.
pub(crate) async fn said(host: &Host, what: &str, times: usize) {
    wait_until(what, DEADLINE, async || match count(host, what) {
        seen if seen >= times => Ok(()),
        seen => Err(format!("{} has said it {seen} times", host.name())),
    })
    .await
    .unwrap();
}

/// Starts a host's agent with these options in the place of the one that runs, and waits until it has registered.
pub(crate) async fn replace(host: &Host, options: &DaemonOptions) {
    host.stop(Daemon::Agent, Signal::SIGTERM, DEADLINE)
        .await
        .unwrap();
    let before = ["registered", "runtime configured"].map(|what| count(host, what));
    host.spawn(Daemon::Agent, options).unwrap();
    for (what, before) in ["registered", "runtime configured"].into_iter().zip(before) {
        said(host, what, before + 1).await;
    }
}
