//! Another authority takes the place of the mesh's.

use mesh_testbed::{Host, wait_until};

use crate::mesh::{DEADLINE, Mesh, agent_options, control_options, replace};

/// Does a step of it as soon as no node is shut out by that.
async fn step(mesh: &Mesh, step: &str) {
    wait_until(step, DEADLINE, async || {
        let said = mesh.control().told(&["ca", "rotate", step]);
        said.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

/// Waits until each of them trusts so many.
async fn trust(hosts: &[Host], trusted: usize) {
    let counted = |host: &Host| {
        let file = host.state_dir().join("ca.pem");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.matches("BEGIN").count()
    };
    wait_until("authorities", DEADLINE, async || {
        let counts: Vec<usize> = hosts.iter().map(counted).collect();
        match counts.iter().all(|count| *count == trusted) {
            true => Ok(()),
            false => Err(format!("trusted are {counts:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_authority_is_rotated_from_start_to_end_without_losing_a_packet() {
    let mesh = Mesh::start(3, &control_options(), &agent_options()).await;
    let hosts = &mesh.hosts()[..3];
    let before = mesh.up(3).await;
    trust(hosts, 1).await;
    let key = |index: usize| {
        let file = hosts[index].state_dir().join("ca.pem");
        std::fs::read_to_string(file).unwrap()
    };
    let first = key(0);
    step(&mesh, "prepare").await;
    trust(hosts, 2).await;
    step(&mesh, "activate").await;
    step(&mesh, "finish").await;
    trust(hosts, 1).await;
    for index in 0..hosts.len() {
        assert_ne!(key(index), first);
    }
    mesh.outlast_timeouts().await;
    assert_eq!(mesh.up(3).await, before);
    // What each has now is all that it needs after a restart.
    for host in hosts {
        replace(host, &agent_options()).await;
    }
    assert_eq!(mesh.up(3).await, before);
    mesh.lost_nothing().await;
}
