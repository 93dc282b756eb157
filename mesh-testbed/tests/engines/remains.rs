//! Nothing of an engine is left behind, however a process with a testbed ends.

use mesh_testbed::{BRIDGE, CONTAINER_MTU, Engine, Signal, Testbed};

use crate::left::nothing_is_left_of_a_child;
use crate::mesh::needed;

#[tokio::test]
async fn nothing_of_an_engine_is_left_after_sigkill() {
    nothing_is_left_of_a_child(
        "remains::nothing_of_an_engine_is_left_after_sigkill",
        engines_of_bridges,
        Some(Signal::SIGKILL),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_engines_over_quilt_cni_is_left_after_sigkill() {
    nothing_is_left_of_a_child(
        "remains::nothing_of_engines_over_quilt_cni_is_left_after_sigkill",
        engines_over_quilt_cni,
        Some(Signal::SIGKILL),
    )
    .await;
}

#[tokio::test]
async fn nothing_of_an_engine_is_left_after_a_panic() {
    nothing_is_left_of_a_child(
        "remains::nothing_of_an_engine_is_left_after_a_panic",
        engines_of_bridges,
        None,
    )
    .await;
}

async fn engines_of_bridges(testbed: &Testbed) -> [Engine; 2] {
    for host in testbed.hosts() {
        let address = "10.42.1.1/24".parse().unwrap();
        let mtu = CONTAINER_MTU;
        host.add_bridge(BRIDGE, address, mtu).await.unwrap();
    }
    [
        needed(Engine::podman(&testbed.hosts()[0]).await),
        needed(Engine::docker(&testbed.hosts()[1]).await),
    ]
}

/// With runtimes inside their namespaces.
async fn engines_over_quilt_cni(testbed: &Testbed) -> [Engine; 2] {
    needed(testbed.start().await);
    [
        needed(Engine::podman_over_quilt_cni(&testbed.hosts()[0]).await),
        needed(Engine::containerd(&testbed.hosts()[1]).await),
    ]
}
