//! What happens to the control plane. The mesh goes on without it, and removes nothing.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use mesh_testbed::Signal;

use super::SOON;
use crate::{
    fault::{Fault, Promise},
    mesh::{ABSENT_GRACE, NODE_TIMEOUT, runtime_options, visitor_options},
    scene::Scene,
};

/// Longer than every timeout of the agents and of the control plane.
const LONG: Duration = Duration::from_secs(NODE_TIMEOUT.as_secs() + ABSENT_GRACE.as_secs() + 2);

pub(super) const FAULTS: &[Fault] = &[
    Fault::scene(
        "control-down",
        "the control plane is killed and stays away for longer than every timeout",
        Promise::LOSSLESS,
        |scene| Box::pin(down(scene)),
    )
    .in_ci(),
    Fault::scene(
        "control-wiped",
        "the control plane's database is deleted, and it starts empty",
        Promise::LOSSLESS,
        |scene| Box::pin(wiped(scene)),
    )
    .in_ci(),
    Fault::scene(
        "control-restored",
        "the control plane's database is restored from a backup that is older than a node",
        Promise::lossless_repair(),
        |scene| Box::pin(restored(scene)),
    )
    .in_ci(),
];

async fn down(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    let control = scene.mesh.testbed.control();
    control.stop(Signal::SIGKILL, SOON).await?;
    tokio::time::sleep(LONG).await;
    control.restart().await?;
    outlast_timeouts().await;
    Ok(())
}

async fn wiped(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    let control = scene.mesh.testbed.control();
    control.stop(Signal::SIGKILL, SOON).await?;
    for file in database_files(scene)? {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    scene.mesh.testbed.control().restart().await?;
    outlast_timeouts().await;
    Ok(())
}

async fn restored(scene: &mut Scene) -> anyhow::Result<()> {
    let control = scene.mesh.testbed.control();
    // Stopped in order, so that the file is whole without its log.
    control.stop(Signal::SIGTERM, SOON).await?;
    let backup = control.dir().join("backup.db");
    fs::copy(control.database(), &backup).context("cannot back the database up")?;
    control.restart().await?;
    let newcomer = scene.mesh.spare();
    newcomer.start_runtime(&runtime_options()).await?;
    newcomer
        .start_agent(&visitor_options(scene.settings.pace))
        .await?;
    scene.traffic.flowing(SOON).await?;
    let subnet = newcomer.status().await?.subnet;

    scene.strike();
    let control = scene.mesh.testbed.control();
    control.stop(Signal::SIGKILL, SOON).await?;
    for file in database_files(scene)? {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    fs::copy(&backup, control.database()).context("cannot restore the database")?;
    control.restart().await?;
    outlast_timeouts().await;
    let after = scene.mesh.spare().status().await?.subnet;
    if after != subnet {
        anyhow::bail!("the node that the backup does not know had {subnet} and now has {after}");
    }
    // Until here no route may have gone; then the newcomer's go.
    for watch in &scene.mesh.watches {
        let removed = watch.take_routes_removed()?;
        if !removed.is_empty() {
            anyhow::bail!("routes were removed: {removed:?}");
        }
    }
    super::membership::leave(scene).await
}

/// The database with whatever SQLite keeps beside it.
fn database_files(scene: &Scene) -> anyhow::Result<Vec<PathBuf>> {
    let control = scene.mesh.testbed.control();
    let entries = fs::read_dir(control.dir()).context("cannot list the database's directory")?;
    Ok(entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("mesh.db")
        })
        .collect())
}

/// What a timeout would still do has been done after this.
async fn outlast_timeouts() {
    tokio::time::sleep(LONG).await;
}
