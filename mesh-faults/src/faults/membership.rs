//! Nodes that join and leave while the others go on.

use std::time::Duration;

use anyhow::Context as _;
use mesh_testbed::{Daemon, Host, Signal, wait_reachable};

use super::SOON;
use crate::{
    fault::{Fault, Promise},
    mesh::{HOSTS, runtime_options, visitor_options},
    scene::Scene,
};

/// How often the fourth node comes and goes.
const TURNS: usize = 3;

/// How often a stranger deregisters a node that lives.
const DEREGISTRATIONS: usize = 10;

pub(super) const FAULTS: &[Fault] = &[
    Fault::scene(
        "peers-come-and-go",
        "a fourth node joins, its container is reached, and it leaves, three times over",
        Promise {
            keeps_routes: false,
            ..Promise::LOSSLESS
        },
        |scene| Box::pin(come_and_go(scene)),
    )
    .in_ci(),
    Fault::scene(
        "deregistered-by-a-stranger",
        "somebody who reaches the control plane deregisters a node once a second, ten times over, while it lives",
        Promise::LOSSLESS,
        |scene| Box::pin(deregistered(scene)),
    )
    .in_ci(),
];

async fn come_and_go(scene: &mut Scene) -> anyhow::Result<()> {
    for _ in 0..TURNS {
        scene.strike();
        come_and_go_once(scene).await?;
    }
    Ok(())
}

async fn deregistered(scene: &mut Scene) -> anyhow::Result<()> {
    let name = scene.victim().name().to_owned();
    for _ in 0..DEREGISTRATIONS {
        scene.strike();
        let control = scene.mesh.testbed.control();
        let nodes = control.nodes().await?;
        let node = nodes.iter().find(|node| node.hostname == name);
        let node = node.context("the node is not listed")?;
        let path = format!("/api/nodes/{}/deregister", node.node_id);
        let answer = control.post(&path, None).await?;
        if answer.status != 200 {
            anyhow::bail!("{path} answers {} {}", answer.status, answer.body);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// The fourth node joins, everybody reaches its container, and it leaves.
pub(crate) async fn come_and_go_once(scene: &Scene) -> anyhow::Result<()> {
    let newcomer = scene.mesh.spare();
    newcomer.start_runtime(&runtime_options()).await?;
    newcomer
        .start_agent(&visitor_options(scene.settings.pace))
        .await?;
    newcomer.wait_peers(HOSTS, SOON).await?;
    let container = newcomer.add_container().await?;
    for other in &scene.mesh.containers {
        wait_reachable(other.netns(), container.address(), SOON).await?;
    }
    drop(container);
    leave(scene).await
}

/// Lets the fourth node leave for good, and waits until its peers have forgotten it.
pub(super) async fn leave(scene: &Scene) -> anyhow::Result<()> {
    let newcomer = scene.mesh.spare();
    newcomer.stop(Daemon::Agent, Signal::SIGTERM, SOON).await?;
    newcomer
        .stop(Daemon::Runtime, Signal::SIGTERM, Duration::from_secs(10))
        .await?;
    for host in scene.mesh.hosts() {
        host.wait_peers(HOSTS - 1, SOON).await?;
    }
    clean(newcomer)
}

/// Removes what the runtime left in the kernel on purpose.
fn clean(host: &Host) -> anyhow::Result<()> {
    let runtime = mesh_testbed::binary(Daemon::Runtime)?;
    let line = format!(
        "{} --cleanup --bpffs {} --state-dir {}",
        runtime.display(),
        host.bpffs_dir().display(),
        host.runtime_state_dir().display()
    );
    crate::scene::run_on(host, &line)
}
