//! Resident memory of a node's daemons in a full cluster.

use std::time::Duration;

use anyhow::{bail, ensure};
use mesh_testbed::{Daemon, DaemonOptions};

use crate::{
    figure::{Figure, quantile},
    node::{PEERS, fresh_testbed, peer_address},
};

/// One real node, and as many as there are subnets left that only the control plane knows.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let testbed = fresh_testbed().await?;
    let (host, control) = (&testbed.hosts()[0], testbed.control());
    let none = DaemonOptions::default();
    // Nodes on paper send no heartbeats and shall stay up for as long as this takes.
    control
        .start(&DaemonOptions::new().args(["--node-timeout", "10m"]))
        .await?;
    host.start_runtime(&none).await?;
    host.spawn(Daemon::Agent, &none)?;
    control
        .wait_status(host.name(), "up", Duration::from_secs(20))
        .await?;
    for number in 1..=PEERS {
        let node = serde_json::json!({
            "hostname": format!("paper{number}"),
            "host_ip": peer_address(number).to_string(),
        });
        let answer = control.post("/api/nodes/register", Some(node)).await?;
        if answer.status != 200 {
            bail!(
                "registration {number} is answered {}: {}",
                answer.status,
                answer.body
            );
        }
    }
    host.wait_peers(PEERS.into(), Duration::from_secs(60))
        .await?;

    let megabytes = |daemon| -> anyhow::Result<f64> {
        let kilobytes = u32::try_from(host.resident_bytes(daemon)? / 1000)?;
        Ok(f64::from(kilobytes) / 1000.0)
    };
    let figure = |daemon: Daemon| {
        let name = format!("{} resident memory, {PEERS} peers", daemon.binary());
        quantile(name, "MB", Some(20.0), &[megabytes(daemon)?], 50)
    };
    let figures = vec![figure(Daemon::Agent)?, figure(Daemon::Runtime)?];
    ensure!(
        host.is_running(Daemon::Agent) && host.is_running(Daemon::Runtime),
        "a daemon has ended:\n{}",
        host.describe()
    );
    Ok(figures)
}
