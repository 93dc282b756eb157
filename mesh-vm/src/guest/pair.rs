//! Two hosts that are each other's peers, with a container each. No agent and no control
//! plane: they touch no kernel interface that could differ.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use mesh_proto::{
    mesh::{Peer, SyncPeersRequest, mesh_dataplane_client::MeshDataplaneClient},
    quilt::{ConfigureNodeSubnetRequest, quilt_runtime_client::QuiltRuntimeClient},
};
use mesh_testbed::{Container, Daemon, DaemonOptions, Host, Signal, Testbed, wait_until};

/// Emulation is slow and shares the machine: what takes a second there is not wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

const SUBNETS: [&str; 2] = ["10.42.1.0/24", "10.42.2.0/24"];

/// Hosts A and B, and the containers on them.
pub(crate) struct Pair {
    testbed: Testbed,
    containers: [Container; 2],
    generation: u64,
}

impl Pair {
    /// Both runtimes run with default options and know each other.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let testbed = Testbed::builder().hosts(SUBNETS.len()).build().await?;
        let mut containers = Vec::new();
        for (host, subnet) in testbed.hosts().iter().zip(SUBNETS) {
            start_runtime(host, subnet, &DaemonOptions::new()).await?;
            containers.push(host.add_container().await?);
        }
        let containers = containers
            .try_into()
            .map_err(|_| anyhow::anyhow!("there are not two hosts"))?;
        let mut pair = Self {
            testbed,
            containers,
            generation: 0,
        };
        pair.introduce().await?;
        Ok(pair)
    }

    /// Hosts A and B.
    pub(crate) fn hosts(&self) -> [&Host; 2] {
        let hosts = self.testbed.hosts();
        [&hosts[0], &hosts[1]]
    }

    /// What the hosts are part of.
    pub(crate) fn testbed(&self) -> &Testbed {
        &self.testbed
    }

    /// The containers on A and B.
    pub(crate) fn containers(&self) -> [&Container; 2] {
        self.containers.each_ref()
    }

    /// Replaces both runtimes, one after the other, and waits until they serve again and know
    /// each other.
    pub(crate) async fn restart(
        &mut self,
        signal: Signal,
        options: &DaemonOptions,
    ) -> anyhow::Result<()> {
        for (host, subnet) in self.hosts().into_iter().zip(SUBNETS) {
            host.stop(Daemon::Runtime, signal, PATIENCE).await?;
            start_runtime(host, subnet, options).await?;
        }
        self.introduce().await
    }

    /// Kills the first host's runtime, and starts none.
    pub(crate) async fn kill_first(&self) -> anyhow::Result<()> {
        let [host, _] = self.hosts();
        host.stop(Daemon::Runtime, Signal::SIGKILL, PATIENCE)
            .await?;
        Ok(())
    }

    /// Starts the first host's runtime again, with default options.
    pub(crate) async fn start_first_again(&mut self) -> anyhow::Result<()> {
        let [host, _] = self.hosts();
        start_runtime(host, SUBNETS[0], &DaemonOptions::new()).await?;
        self.introduce().await
    }

    /// Stops both runtimes and lets them remove what they made.
    pub(crate) async fn clean_up(&mut self) -> anyhow::Result<()> {
        for host in self.hosts() {
            host.stop(Daemon::Runtime, Signal::SIGTERM, PATIENCE)
                .await?;
            host.spawn(Daemon::Runtime, &DaemonOptions::new().arg("--cleanup"))?;
            let status = wait_until("the end of --cleanup", PATIENCE, async || {
                match host.exit_status(Daemon::Runtime) {
                    Ok(Some(status)) => Ok(status),
                    Ok(None) => Err("it runs".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await?;
            ensure!(
                status.success(),
                "`quilt-runtime --cleanup` on {} ends with {status}",
                host.name()
            );
        }
        Ok(())
    }

    /// Tells either runtime of the other.
    async fn introduce(&mut self) -> anyhow::Result<()> {
        self.generation += 1;
        let [a, b] = self.hosts();
        for (host, peer, subnet) in [(a, b, SUBNETS[1]), (b, a, SUBNETS[0])] {
            let answer = MeshDataplaneClient::new(host.runtime_channel().await?)
                .sync_peers(SyncPeersRequest {
                    generation: self.generation,
                    host_address: host.address().to_string(),
                    peers: vec![Peer {
                        subnet: subnet.into(),
                        host_address: peer.address().to_string(),
                        hostname: peer.name().into(),
                        ..Peer::default()
                    }],
                    node_settings: None,
                })
                .await
                .context("SyncPeers")?
                .into_inner();
            ensure!(answer.success, "SyncPeers is refused: {}", answer.error);
            ensure!(answer.rejected.is_empty(), "{:?}", answer.rejected);
        }
        Ok(())
    }

    /// The logs of both runtimes, whole: the verifier's complaint is long.
    pub(crate) fn logs(&self) -> String {
        self.hosts()
            .map(|host| {
                let log = host.log(Daemon::Runtime);
                let text = fs::read(&log).unwrap_or_default();
                format!(
                    "--- {}\n{}\n",
                    log.display(),
                    String::from_utf8_lossy(&text)
                )
            })
            .concat()
    }
}

async fn start_runtime(host: &Host, subnet: &str, options: &DaemonOptions) -> anyhow::Result<()> {
    host.spawn(Daemon::Runtime, options)?;
    host.wait_serving(PATIENCE).await?;
    let answer = QuiltRuntimeClient::new(host.runtime_channel().await?)
        .configure_node_subnet(ConfigureNodeSubnetRequest {
            subnet: subnet.into(),
        })
        .await
        .context("ConfigureNodeSubnet")?
        .into_inner();
    ensure!(
        answer.success,
        "ConfigureNodeSubnet is refused: {}",
        answer.error
    );
    Ok(())
}
