//! Three hosts with a container each and traffic between them, and one more beside them on the underlay.

use std::time::Duration;

use mesh_testbed::{
    Container, Daemon, DaemonOptions, Host, Testbed, UdpFlow, UdpFlowOptions, wait_reachable,
};

/// How long anything may take. Only a failing test waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How many hosts run daemons.
pub(crate) const NODES: usize = 3;

/// What is dropped first stands first.
pub(crate) struct Cluster {
    _flows: Vec<UdpFlow>,
    _containers: Vec<Container>,
    pub(crate) testbed: Testbed,
}

impl Cluster {
    /// Makes the hosts, and starts nothing.
    pub(crate) async fn bed() -> Testbed {
        Testbed::builder().hosts(NODES + 1).build().await.unwrap()
    }

    /// Starts the daemons, each with what `options` says for its port of metrics, and the traffic.
    pub(crate) async fn start(testbed: Testbed, options: impl Fn(u16) -> DaemonOptions) -> Self {
        use crate::page::{AGENT, CONTROL, RUNTIME};

        let hosts = &testbed.hosts()[..NODES];
        for host in hosts {
            host.spawn(Daemon::Runtime, &options(RUNTIME)).unwrap();
        }
        testbed.control().start(&options(CONTROL)).await.unwrap();
        let agent =
            options(AGENT).args(["--heartbeat-interval", "300ms", "--sync-interval", "500ms"]);
        for host in hosts {
            host.wait_serving(DEADLINE).await.unwrap();
            host.spawn(Daemon::Agent, &agent).unwrap();
            host.wait_joined(DEADLINE).await.unwrap();
        }
        testbed.wait_converged(DEADLINE).await.unwrap();
        let (mut containers, mut flows) = (Vec::<Container>::new(), Vec::new());
        for host in hosts {
            let new = host.add_container().await.unwrap();
            for other in &containers {
                for (from, to) in [(&new, other), (other, &new)] {
                    let options = UdpFlowOptions {
                        rate: 50,
                        max_packets: u64::MAX,
                        ..UdpFlowOptions::default()
                    };
                    let reached = wait_reachable(from.netns(), to.address(), DEADLINE).await;
                    reached.unwrap();
                    let flow = UdpFlow::start(from.netns(), to.netns(), to.address(), options);
                    flows.push(flow.unwrap());
                }
            }
            containers.push(new);
        }
        Self {
            _flows: flows,
            _containers: containers,
            testbed,
        }
    }

    /// Those that run daemons.
    pub(crate) fn nodes(&self) -> &[Host] {
        &self.testbed.hosts()[..NODES]
    }

    /// The one that does not.
    pub(crate) fn beside(&self) -> &Host {
        &self.testbed.hosts()[NODES]
    }
}
