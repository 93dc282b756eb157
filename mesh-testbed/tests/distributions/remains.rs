//! Nothing of an engine of another distribution is left behind, however a process with a testbed ends.

use mesh_testbed::{Engine, EngineNetwork, Signal, Testbed};

use crate::{
    containerd::containerd, docker::docker, left::nothing_is_left_of_a_child, mesh::needed,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn nothing_of_containerd_is_left_after_sigkill() {
    nothing_is_left_of_a_child(
        "remains::nothing_of_containerd_is_left_after_sigkill",
        engines,
        Some(Signal::SIGKILL),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs another distribution, which `cargo xtask test --engines` makes"]
async fn nothing_of_docker_is_left_after_sigkill() {
    nothing_is_left_of_a_child(
        "remains::nothing_of_docker_is_left_after_sigkill",
        dockers,
        Some(Signal::SIGKILL),
    )
    .await;
}

async fn engines(testbed: &Testbed) -> [Engine; 2] {
    needed(testbed.start().await);
    [
        containerd(&testbed.hosts()[0]).await,
        containerd(&testbed.hosts()[1]).await,
    ]
}

async fn dockers(testbed: &Testbed) -> [Engine; 2] {
    needed(testbed.start().await);
    let [first, second] = testbed.hosts() else {
        unreachable!()
    };
    let engines = [docker(first).await, docker(second).await];
    for (engine, host) in engines.iter().zip(testbed.hosts()) {
        let network = EngineNetwork::default();
        needed(engine.create_bridge_network(host, network, &[]).await);
    }
    engines
}
