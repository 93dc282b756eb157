//! What happens to the host's own network: its card, its address, its settings.

use std::{net::Ipv4Addr, time::Duration};

use mesh_testbed::{Daemon, wait_reachable};

use super::{SOON, daemons::replace};
use crate::{
    fault::{Fault, Promise},
    mesh::{HOSTS, NODE_TIMEOUT, runtime_options, visitor_options},
    scene::{Scene, run_on},
    state::OVERLAY,
};

/// Where the host moves to, and comes back from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

pub(super) const FAULTS: &[Fault] = &[
    Fault::scene(
        "underlay-down-up",
        "the underlay's interface is set down for half a second",
        Promise::recovers_within(1500),
        |scene| Box::pin(down_up(scene)),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "underlay-unplugged",
        "the cable is pulled until the peers have called the node dead, and plugged in again",
        Promise::recovers_within(5000),
        |scene| Box::pin(unplugged(scene)),
    )
    .in_ci(),
    Fault::scene(
        "underlay-address",
        "the host's address changes and its agent is told; later it changes back. The time \
         counts from when the agent knows",
        Promise::recovers_within(1000),
        |scene| Box::pin(moved(scene)),
    )
    .in_ci(),
    Fault::scene(
        "rp-filter-strict",
        "strict reverse path filtering is switched on, on every interface, with and without \
         the fast path",
        Promise::LOSSLESS,
        |scene| Box::pin(rp_filter(scene)),
    )
    .in_ci(),
    Fault::scene(
        "ip-forward-cleared",
        "`net.ipv4.ip_forward` is set to 0",
        Promise::lossless_repair(),
        |scene| Box::pin(forwarding_cleared(scene)),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "foreign-vxlan-at-start",
        "another node starts while a VXLAN device that is not ours holds VNI and port: it says \
         so, and joins once the device is gone",
        Promise {
            keeps_routes: false,
            ..Promise::LOSSLESS
        },
        |scene| Box::pin(foreign_device(scene)),
    )
    .in_ci(),
];

async fn down_up(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    scene.run("ip link set eth0 down")?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.run("ip link set eth0 up")?;
    scene.cause_removed();
    Ok(())
}

async fn unplugged(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    let testbed = &scene.mesh.testbed;
    testbed.underlay_cut(scene.victim()).await?;
    for other in &scene.mesh.hosts()[1..] {
        other.wait_peers(HOSTS - 2, SOON + NODE_TIMEOUT).await?;
    }
    testbed.underlay_restore(scene.victim()).await?;
    scene.cause_removed();
    Ok(())
}

async fn moved(scene: &mut Scene) -> anyhow::Result<()> {
    let home = scene.victim().address();
    for (from, to) in [(home, ELSEWHERE), (ELSEWHERE, home)] {
        scene.strike();
        scene.victim().change_address(to).await?;
        // The testbed starts it with the address that the host has now.
        scene.victim().restart(Daemon::Agent)?;
        scene.cause_removed();
        scene.traffic.flowing(SOON).await?;
        let stale = async || {
            let mut stale = Vec::new();
            for (host, observer) in scene.mesh.hosts().iter().zip(&scene.mesh.observers) {
                let state = observer.observe().await?;
                let old = from.to_string();
                let of_host = state
                    .into_iter()
                    .filter(|fact| fact.split([' ', '/']).any(|word| word == old));
                stale.extend(of_host.map(|fact| format!("{}: {fact}", host.name())));
            }
            anyhow::Ok(stale)
        };
        let deadline = mesh_testbed::Deadline::after(SOON);
        loop {
            let left = stale().await?;
            if left.is_empty() {
                break;
            }
            if deadline.pause().await.is_err() {
                anyhow::bail!("of the old address {from} is left: {}", left.join("; "));
            }
        }
    }
    Ok(())
}

async fn rp_filter(scene: &mut Scene) -> anyhow::Result<()> {
    let set = |scene: &Scene, value: u8| {
        scene.run(&format!(
            "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {value} > $file; done"
        ))
    };
    scene.strike();
    set(scene, 1)?;
    scene.traffic.flowing(SOON).await?;
    let off = runtime_options().args(["--fast-path", "off"]);
    replace(scene.victim(), Daemon::Runtime, &off).await?;
    scene.traffic.flowing(SOON).await?;
    replace(scene.victim(), Daemon::Runtime, &runtime_options()).await?;
    set(scene, 0)
}

async fn forwarding_cleared(scene: &mut Scene) -> anyhow::Result<()> {
    scene
        .damage_unseen(&["echo 0 > /proc/sys/net/ipv4/ip_forward"])
        .await
}

async fn foreign_device(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    let newcomer = scene.mesh.spare();
    run_on(
        newcomer,
        "ip link add foreign0 type vxlan id 100 dstport 4789 dev eth0 && ip link set foreign0 up",
    )?;
    newcomer.start_runtime(&runtime_options()).await?;
    newcomer.spawn(Daemon::Agent, &visitor_options(scene.settings.pace))?;
    mesh_testbed::wait_until("a word about foreign0", SOON, async || {
        let status = newcomer.status().await.map_err(|error| error.to_string())?;
        let problems = status.problems();
        match problems.iter().any(|problem| problem.contains("foreign0")) {
            true => Ok(()),
            false => Err(format!("the problems are {problems:?}")),
        }
    })
    .await?;
    run_on(newcomer, "ip link delete foreign0")?;
    let gone = std::time::Instant::now();
    mesh_testbed::wait_until("our own device", SOON, async || {
        let links = mesh_testbed::Links::of(newcomer.netns()).map_err(|it| it.to_string())?;
        match links.index(OVERLAY).await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let made = gone.elapsed();
    newcomer.wait_peers(HOSTS, SOON).await?;
    let container = newcomer.add_container().await?;
    for other in &scene.mesh.containers {
        wait_reachable(other.netns(), container.address(), SOON).await?;
    }
    drop(container);
    super::membership::leave(scene).await?;
    scene.notes.push(format!(
        "our device is there {} ms after the foreign one has gone",
        made.as_millis()
    ));
    Ok(())
}
