//! Programs, pins and maps that somebody takes away. Without them the kernel path carries.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::Context as _;
use mesh_layout::{LAYOUT_VERSION, map_names};
use mesh_testbed::Daemon;

use super::daemons::replace;
use crate::{
    fault::{Fault, Promise},
    mesh::runtime_options,
    scene::{Repair, Scene},
    state,
};

pub(super) const FAULTS: &[Fault] = &[
    Fault::scene(
        "links-detached",
        "every tcx link of the fast path is detached with `bpftool link detach`",
        Promise::LOSSLESS,
        |scene| Box::pin(links_detached(scene)),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "qdisc-deleted",
        "on a node that attaches with clsact, `tc qdisc del dev eth0 clsact` takes the filters away",
        // Whoever adds clsact to an interface that is up, or takes it off, has the kernel switch
        // off the interface's transmission for a moment: `qdisc_graft` in net/sched/sch_api.c
        // calls `dev_deactivate`. What is sent then is dropped, also where there is no overlay.
        Promise::recovers_within(1500),
        |scene| Box::pin(qdisc_deleted(scene)),
    )
    .in_ci(),
    Fault::scene(
        "pins-removed",
        "every pin of maps and links below `/sys/fs/bpf/quilt-mesh` is removed",
        Promise::LOSSLESS,
        |scene| Box::pin(pins_removed(scene)),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "maps-emptied",
        "every entry of the maps `peers`, `vteps` and `endpoints` is deleted",
        Promise::recovers_within(6000),
        |scene| Box::pin(maps_emptied(scene)),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "fast-path-off-and-on",
        "the runtime is restarted with `--fast-path off`, and then with the fast path again",
        Promise::LOSSLESS,
        |scene| Box::pin(off_and_on(scene)),
    )
    .in_ci()
    .quick(),
];

fn pins(scene: &Scene, directory: &str) -> anyhow::Result<Vec<PathBuf>> {
    let directory = scene
        .victim()
        .bpffs_dir()
        .join("quilt-mesh")
        .join(directory);
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

async fn links_detached(scene: &mut Scene) -> anyhow::Result<()> {
    for _ in 0..scene.settings.repeat {
        scene.strike();
        for pin in pins(scene, "links")? {
            scene.run(&format!("bpftool link detach pinned {}", pin.display()))?;
        }
        scene.found_and_repaired().await?;
    }
    Ok(())
}

async fn pins_removed(scene: &mut Scene) -> anyhow::Result<()> {
    for _ in 0..scene.settings.repeat {
        scene.strike();
        for directory in ["links", &format!("v{LAYOUT_VERSION}")] {
            for pin in pins(scene, directory)? {
                fs::remove_file(&pin)
                    .with_context(|| format!("cannot remove {}", pin.display()))?;
            }
        }
        scene.found_and_repaired().await?;
    }
    Ok(())
}

async fn maps_emptied(scene: &mut Scene) -> anyhow::Result<()> {
    for _ in 0..scene.settings.repeat {
        scene.strike();
        for map in [map_names::PEERS, map_names::VTEPS, map_names::ENDPOINTS] {
            state::empty(scene.victim(), map)?;
        }
        scene.found_and_repaired().await?;
    }
    Ok(())
}

async fn off_and_on(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    let off = runtime_options().args(["--fast-path", "off"]);
    replace(scene.victim(), Daemon::Runtime, &off).await?;
    scene.traffic.flowing(super::SOON).await?;
    replace(scene.victim(), Daemon::Runtime, &runtime_options()).await
}

async fn qdisc_deleted(scene: &mut Scene) -> anyhow::Result<()> {
    let clsact = runtime_options().args(["--attach", "clsact"]);
    scene.strike();
    replace(scene.victim(), Daemon::Runtime, &clsact).await?;
    scene.traffic.flowing(super::SOON).await?;
    let attached = |scene: &Scene| {
        crate::scene::output_on(scene.victim(), "tc filter show dev eth0 ingress")
            .map(|filters| filters.contains("decapsulate"))
    };
    super::wait_for("filters on eth0", super::SOON, || attached(scene)).await?;
    scene.strike();
    scene.run("tc qdisc del dev eth0 clsact")?;
    let removed = Instant::now();
    super::wait_for("filters on eth0 again", super::SOON, || attached(scene)).await?;
    scene.note_repair(Repair::Found(removed.elapsed()));
    scene.traffic.flowing(super::SOON).await?;
    scene.strike();
    replace(scene.victim(), Daemon::Runtime, &runtime_options()).await
}
