//! What happens to containers.

use std::time::{Duration, Instant};

use mesh_testbed::{Container, ContainerOptions, wait_reachable};

use super::SOON;
use crate::{
    fault::{Fault, Promise},
    scene::Scene,
};

pub(super) const FAULTS: &[Fault] = &[Fault::scene(
    "container-recreated",
    "a container is deleted, and another one gets its address with another MAC address",
    Promise::LOSSLESS,
    |scene| Box::pin(recreated(scene)),
)
.in_ci()
.quick()];

async fn recreated(scene: &mut Scene) -> anyhow::Result<()> {
    // One of its own, so that the flows that everything is measured by live on.
    let mut container = scene.victim().add_container().await?;
    reached(scene, &container).await?;
    let mut longest = Duration::ZERO;
    for _ in 0..scene.settings.repeat {
        let options = ContainerOptions {
            address: Some(container.address()),
            ..ContainerOptions::default()
        };
        drop(container);
        scene.strike();
        container = scene.victim().add_container_with(&options).await?;
        let there = Instant::now();
        reached(scene, &container).await?;
        longest = longest.max(there.elapsed());
    }
    scene.notes.push(format!(
        "reached from every other host {} ms after it was there, at most",
        longest.as_millis()
    ));
    Ok(())
}

/// From the other hosts: what a container on the same bridge has learnt by ARP is between the
/// two of them, and an engine announces a new container there.
async fn reached(scene: &Scene, container: &Container) -> anyhow::Result<()> {
    for other in &scene.mesh.containers[1..] {
        wait_reachable(other.netns(), container.address(), SOON).await?;
    }
    Ok(())
}
