//! Nodes that join and leave while the others go on.

use std::time::Duration;

use anyhow::Context as _;
use mesh_rest::{problem_kind::Kind, status::Status};
use mesh_testbed::{Daemon, Error, Host, Signal, wait_reachable};

use super::SOON;
use crate::{
    fault::{Fault, Promise},
    mesh::{HOSTS, NODE_TIMEOUT, agent_options, runtime_options, visitor_options},
    scene::Scene,
};

/// How often the fourth node comes and goes.
const TURNS: usize = 3;

/// How often a node that lives is deregistered.
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
        "deregistered-while-alive",
        "an operator's program deregisters a node once a second, ten times over, while it lives; a stranger is refused",
        Promise::LOSSLESS,
        |scene| Box::pin(deregistered(scene)),
    )
    .in_ci(),
    Fault::scene(
        "cloned-host",
        "another host is started that is a copy of a node, with the state of its agent and its name",
        Promise::LOSSLESS,
        |scene| Box::pin(cloned(scene, Start::Later)),
    )
    .in_ci(),
    Fault::scene(
        "cloned-host-at-once",
        "the same within the moment in which the copy may be the host, moved: it is let in, until the host shows that \
         it is still there",
        Promise::recovers_within(1000),
        |scene| Box::pin(cloned(scene, Start::AtOnce)),
    )
    .in_ci(),
    Fault::scene(
        "agent-state-lost",
        "an agent is killed, its state is deleted, and it starts anew with a token for its node, which keeps its subnet",
        Promise::LOSSLESS,
        |scene| Box::pin(state_lost(scene)),
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
        let node_id = node.node_id.clone();
        let refused = {
            let node_id = node_id.clone();
            control.call_without_credentials(async move |client| client.deregister(&node_id).await)
        };
        match refused.await {
            Err(Error::Rest(error)) if error.kind() == Some(Kind::Unauthorized) => {}
            other => anyhow::bail!("whoever has no credentials is answered {other:?}"),
        }
        control
            .call(async move |client| client.deregister(&node_id).await)
            .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// How long a copy goes on.
const CLONED: Duration = Duration::from_secs(3 * NODE_TIMEOUT.as_secs());

/// When a copy is started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// While the host that it was made of waits for an answer to what it asked with the same token.
    AtOnce,
    /// When that was answered, and has asked again.
    Later,
}

async fn cloned(scene: &mut Scene, start: Start) -> anyhow::Result<()> {
    let (original, copy) = (scene.mesh.victim(), scene.mesh.spare());
    let (name, address) = (original.name().to_owned(), original.address());
    let state = copy.dir().join("state-of-a-clone");
    std::fs::create_dir_all(&state)?;
    for file in std::fs::read_dir(original.state_dir())? {
        let file = file?;
        std::fs::copy(file.path(), state.join(file.file_name()))?;
    }
    copy.start_runtime(&runtime_options()).await?;
    let token = original.state_dir().join("node-token");
    for _ in 0..2 {
        let before = std::fs::read(&token)?;
        mesh_testbed::wait_until("the next token", SOON, async || {
            match std::fs::read(&token) {
                Ok(now) if start == Start::AtOnce || now != before => Ok(()),
                now => Err(format!("{now:?}")),
            }
        })
        .await?;
    }
    let options = agent_options(scene.settings.pace)
        .args(["--hostname".to_owned(), name.clone()])
        .args(["--state-dir".to_owned(), state.display().to_string()]);
    scene.strike();
    scene.mesh.spare().spawn(Daemon::Agent, &options)?;
    scene.cause_removed();
    tokio::time::sleep(CLONED).await;
    let nodes = scene.mesh.testbed.control().nodes().await?;
    let listed: Vec<_> = nodes.iter().filter(|node| node.hostname == name).collect();
    match listed.as_slice() {
        [node] if node.host_ip() == Some(address) => {}
        other => anyhow::bail!("listed under its name is {other:?}"),
    }
    let copy = scene.mesh.spare();
    copy.stop(Daemon::Agent, Signal::SIGTERM, SOON).await?;
    copy.stop(Daemon::Runtime, Signal::SIGTERM, Duration::from_secs(10))
        .await?;
    clean(copy)
}

async fn state_lost(scene: &mut Scene) -> anyhow::Result<()> {
    let host = scene.mesh.victim();
    let (name, subnet) = (host.name().to_owned(), host.status().await?.subnet);
    scene.strike();
    let host = scene.mesh.victim();
    host.stop(Daemon::Agent, Signal::SIGKILL, SOON).await?;
    for file in std::fs::read_dir(host.state_dir())? {
        std::fs::remove_file(file?.path())?;
    }
    // The key that its certificate was for is lost: only a token that was made for the node makes it that node again.
    let control = scene.mesh.testbed.control();
    let token = control.told(&["token", "create", "--node", &name])?;
    let options = agent_options(scene.settings.pace).env("QUILT_MESH_JOIN", token.trim());
    host.spawn(Daemon::Agent, &options)?;
    mesh_testbed::wait_until("the node to be up again", SOON, async || {
        let control = scene.mesh.testbed.control();
        let nodes = control.nodes().await.map_err(|error| error.to_string())?;
        let log = std::fs::read_to_string(host.log(Daemon::Agent)).unwrap_or_default();
        let node = nodes.iter().find(|node| node.hostname == name);
        let is_back = log.matches("registered node_id").count() >= 2;
        match node.filter(|node| node.status() == Some(Status::Up) && is_back) {
            Some(_) => Ok(()),
            None => Err(format!("{nodes:?}")),
        }
    })
    .await?;
    let nodes = scene.mesh.testbed.control().nodes().await?;
    let mine: Vec<_> = nodes.iter().filter(|node| node.hostname == name).collect();
    match mine.as_slice() {
        [node] if node.subnet == subnet => Ok(()),
        other => anyhow::bail!("it had {subnet}, and is listed as {other:?}"),
    }
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
