//! The whole cluster restarted and upgraded, node by node, as operators do.

use std::path::Path;

use anyhow::Context as _;
use mesh_testbed::{Daemon, DaemonOptions, Signal};

use super::{SOON, daemons::replace};
use crate::{
    fault::{Fault, Promise},
    mesh::{agent_options, control_options, runtime_options},
    scene::{Scene, Settings},
};

pub(super) const FAULTS: &[Fault] = &[
    Fault::scene(
        "rolling-restart",
        "the control plane, and then both daemons of each node in turn, are restarted",
        Promise::LOSSLESS,
        |scene| Box::pin(rolling_restart(scene)),
    )
    .in_ci(),
    Fault {
        lacking: Some(lacking_other_build),
        ..Fault::scene(
            "rolling-upgrade",
            "the whole cluster goes to another build of all daemons, node by node, and back",
            Promise::LOSSLESS,
            |scene| Box::pin(rolling_upgrade(scene)),
        )
        .in_ci()
    },
];

async fn rolling_restart(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    roll(scene, None).await
}

async fn rolling_upgrade(scene: &mut Scene) -> anyhow::Result<()> {
    let other = scene.settings.upgrade_from.clone();
    let other = other.context("no other build")?;
    scene.strike();
    let before = scene.victim().status().await?.version;
    roll(scene, Some(&other)).await?;
    let between = scene.victim().status().await?.version;
    scene.traffic.flowing(SOON).await?;
    scene.mesh.testbed.wait_converged(SOON).await?;
    roll(scene, None).await?;
    scene.notes.push(format!(
        "from {before} to {between} of {} and back",
        other.display()
    ));
    Ok(())
}

/// Restarts everything, with the binaries of this directory if one is given.
async fn roll(scene: &Scene, binaries: Option<&Path>) -> anyhow::Result<()> {
    let of = |options: DaemonOptions, name: &str| match binaries {
        Some(directory) => options.binary(directory.join(name)),
        None => options,
    };
    let control = scene.mesh.testbed.control();
    control.stop(Signal::SIGTERM, SOON).await?;
    control
        .start(&of(control_options(), "quilt-mesh-control"))
        .await?;
    for host in scene.mesh.hosts() {
        let runtime = of(runtime_options(), Daemon::Runtime.binary());
        replace(host, Daemon::Runtime, &runtime).await?;
        let agent = of(agent_options(), Daemon::Agent.binary());
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
