//! The whole cluster restarted and upgraded, node by node, as operators do.

use anyhow::Context as _;
use mesh_testbed::{Daemon, DaemonOptions, Signal};

use super::{SOON, daemons::replace};
use crate::{
    fault::{Fault, Promise},
    mesh::options,
    scene::{Scene, Settings},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault::scene(
        "rolling-restart",
        "the control plane, and then both daemons of each node in turn, are restarted; the \
         agents deregister",
        Promise::LOSSLESS,
        |scene| Box::pin(rolling_restart(scene)),
    )
    .in_ci(),
    Fault {
        from_other_build: true,
        lacking: Some(lacking_other_build),
        ..Fault::scene(
            "rolling-upgrade",
            "the whole cluster, begun with another build, is upgraded node by node; then the \
             nodes, but not the control plane, go back and forth once more",
            Promise::LOSSLESS,
            |scene| Box::pin(rolling_upgrade(scene)),
        )
        .in_ci()
    },
];

async fn rolling_restart(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    let options = options(None, false, scene.settings.pace);
    roll_control(scene, &options).await?;
    roll_nodes(scene, options).await
}

async fn rolling_upgrade(scene: &mut Scene) -> anyhow::Result<()> {
    let pace = scene.settings.pace;
    let other = scene.settings.upgrade_from.clone();
    let other = other.context("no other build")?;
    scene.strike();
    let before = scene.victim().status().await?.version;
    roll_control(scene, &options(None, true, pace)).await?;
    roll_nodes(scene, options(None, true, pace)).await?;
    let after = scene.victim().status().await?.version;
    // A control plane does not go back: its database may have changed for good.
    roll_nodes(scene, options(Some(&other), true, pace)).await?;
    scene.traffic.flowing(SOON).await?;
    roll_nodes(scene, options(None, true, pace)).await?;
    // What this build pins may differ from what the other one pinned.
    scene.mesh.rebase().await?;
    scene
        .notes
        .push(format!("from {before} of {} to {after}", other.display()));
    Ok(())
}

/// Restarts the control plane.
async fn roll_control(scene: &Scene, [options, ..]: &[DaemonOptions; 3]) -> anyhow::Result<()> {
    let control = scene.mesh.testbed.control();
    control.stop(Signal::SIGTERM, SOON).await?;
    Ok(control.start(options).await?)
}

/// Restarts both daemons of each node in turn.
async fn roll_nodes(scene: &Scene, options: [DaemonOptions; 3]) -> anyhow::Result<()> {
    let [_, runtime, agent] = options;
    for host in scene.mesh.hosts() {
        replace(host, Daemon::Runtime, &runtime).await?;
        replace(host, Daemon::Agent, &agent).await?;
    }
    Ok(())
}

fn lacking_other_build(settings: &Settings) -> Option<String> {
    let Some(directory) = &settings.upgrade_from else {
        return Some("no other build is given: say where with --upgrade-from-dir".to_owned());
    };
    ["quilt-mesh-control", "quilt-runtime", "quilt-mesh-agent"]
        .into_iter()
        .find(|name| !directory.join(name).is_file())
        .map(|name| format!("{} holds no {name}", directory.display()))
}
