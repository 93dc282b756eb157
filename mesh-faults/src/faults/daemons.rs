//! Daemons that die, hang, and come back. The data plane is in the kernel: nothing is lost.

use std::time::Duration;

use mesh_testbed::{Daemon, DaemonOptions, Host, Signal};

use super::SOON;
use crate::{
    fault::{Fault, Promise},
    scene::Scene,
};

/// How long everything stays dead.
const DEAD: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Runtime,
    Agent,
    Control,
}

use Part::{Agent, Control, Runtime};

pub(super) const FAULTS: &[Fault] = &[
    Fault::scene(
        "kill-runtime-agent-control",
        "SIGKILL to runtime, agent and control plane, in this order; then they start in it",
        Promise::LOSSLESS,
        |scene| Box::pin(killed(scene, [Runtime, Agent, Control])),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "kill-runtime-control-agent",
        "SIGKILL to runtime, control plane and agent, in this order; then they start in it",
        Promise::LOSSLESS,
        |scene| Box::pin(killed(scene, [Runtime, Control, Agent])),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "kill-agent-runtime-control",
        "SIGKILL to agent, runtime and control plane, in this order; then they start in it",
        Promise::LOSSLESS,
        |scene| Box::pin(killed(scene, [Agent, Runtime, Control])),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "kill-agent-control-runtime",
        "SIGKILL to agent, control plane and runtime, in this order; then they start in it",
        Promise::LOSSLESS,
        |scene| Box::pin(killed(scene, [Agent, Control, Runtime])),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "kill-control-runtime-agent",
        "SIGKILL to control plane, runtime and agent, in this order; then they start in it",
        Promise::LOSSLESS,
        |scene| Box::pin(killed(scene, [Control, Runtime, Agent])),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "kill-control-agent-runtime",
        "SIGKILL to control plane, agent and runtime, in this order; then they start in it",
        Promise::LOSSLESS,
        |scene| Box::pin(killed(scene, [Control, Agent, Runtime])),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "node-killed",
        "SIGKILL to all of a node's processes at once; then they start together",
        Promise::LOSSLESS,
        |scene| Box::pin(node_killed(scene)),
    )
    .in_ci()
    .quick(),
    Fault::scene(
        "pause-runtime",
        "the runtime is stopped by SIGSTOP for longer than every timeout",
        Promise::LOSSLESS,
        |scene| Box::pin(paused(scene, Runtime)),
    )
    .in_ci(),
    Fault::scene(
        "pause-agent",
        "the agent is stopped by SIGSTOP for longer than every timeout, and its node called down",
        Promise::LOSSLESS,
        |scene| Box::pin(paused(scene, Agent)),
    )
    .in_ci(),
    Fault::scene(
        "pause-control",
        "the control plane is stopped by SIGSTOP for longer than every timeout",
        Promise::LOSSLESS,
        |scene| Box::pin(paused(scene, Control)),
    )
    .in_ci(),
];

async fn killed(scene: &mut Scene, order: [Part; 3]) -> anyhow::Result<()> {
    scene.strike();
    for part in order {
        match part {
            Runtime => stop(scene.victim(), Daemon::Runtime, Signal::SIGKILL).await?,
            Agent => stop(scene.victim(), Daemon::Agent, Signal::SIGKILL).await?,
            Control => {
                let control = scene.mesh.testbed.control();
                control.stop(Signal::SIGKILL, SOON).await?;
            }
        }
    }
    tokio::time::sleep(DEAD).await;
    for part in order {
        match part {
            Runtime => scene.victim().restart(Daemon::Runtime)?,
            Agent => scene.victim().restart(Daemon::Agent)?,
            Control => scene.mesh.testbed.control().restart().await?,
        }
    }
    scene.victim().wait_ready(SOON).await?;
    Ok(())
}

async fn node_killed(scene: &mut Scene) -> anyhow::Result<()> {
    scene.strike();
    let victim = scene.victim();
    victim.kill_all();
    tokio::time::sleep(DEAD).await;
    victim.restart(Daemon::Agent)?;
    victim.restart(Daemon::Runtime)?;
    victim.wait_ready(SOON).await?;
    Ok(())
}

async fn paused(scene: &mut Scene, part: Part) -> anyhow::Result<()> {
    let pause = scene.settings.pause;
    scene.strike();
    for (signal, time) in [(Signal::SIGSTOP, pause), (Signal::SIGCONT, Duration::ZERO)] {
        match part {
            Runtime => scene.victim().kill(Daemon::Runtime, signal)?,
            Agent => scene.victim().kill(Daemon::Agent, signal)?,
            Control => scene.mesh.testbed.control().kill(signal)?,
        }
        tokio::time::sleep(time).await;
    }
    scene.cause_removed();
    scene
        .notes
        .push(format!("stopped for {} s", pause.as_secs()));
    Ok(())
}

async fn stop(host: &Host, daemon: Daemon, signal: Signal) -> anyhow::Result<()> {
    host.stop(daemon, signal, SOON).await?;
    Ok(())
}

/// Ends a daemon in order and starts it with other options, and waits until it is ready.
pub(super) async fn replace(
    host: &Host,
    daemon: Daemon,
    options: &DaemonOptions,
) -> anyhow::Result<()> {
    stop(host, daemon, Signal::SIGTERM).await?;
    host.spawn(daemon, options)?;
    host.wait_ready(SOON).await?;
    Ok(())
}
