//! A control plane that speaks TLS is restarted, and restored from a backup on an empty disk.

use std::fs;

use mesh_testbed::{ControlPlane, Signal};

use crate::mesh::{DEADLINE, Mesh, agent_options, control_options};

/// What an operator backs up: the database of a control plane that was stopped, and its authority.
const BACKED_UP: [&str; 2] = ["mesh.db", "authority.key.pem"];

/// Loses the disk: all but the log, which is ours.
fn lose_disk(control: &ControlPlane) {
    for file in fs::read_dir(control.dir()).unwrap() {
        let path = file.unwrap().path();
        if path != control.log() {
            fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test]
async fn a_control_plane_is_killed_and_restored_from_a_backup_without_losing_a_packet() {
    let mut mesh = Mesh::start(2, &control_options(), &agent_options()).await;
    let before = mesh.up(2).await;
    let control = mesh.control();
    // In order, so that the database is whole without its log.
    control.stop(Signal::SIGTERM, DEADLINE).await.unwrap();
    let backup = BACKED_UP.map(|name| fs::read(control.dir().join(name)).unwrap());
    control.start(&control_options()).await.unwrap();
    assert_eq!(mesh.up(2).await, before);
    // As long as it takes to call everybody down.
    control.stop(Signal::SIGKILL, DEADLINE).await.unwrap();
    mesh.outlast_timeouts().await;
    let control = mesh.control();
    control.start(&control_options()).await.unwrap();
    assert_eq!(mesh.up(2).await, before);

    // A node of which the backup does not know.
    mesh.grow(&agent_options()).await;
    let before = mesh.up(3).await;
    let control = mesh.control();
    control.stop(Signal::SIGKILL, DEADLINE).await.unwrap();
    lose_disk(control);
    for (name, content) in BACKED_UP.into_iter().zip(&backup) {
        let path = control.dir().join(name);
        fs::write(&path, content).unwrap();
        // As it was: its key is for its owner alone.
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    control.start(&control_options()).await.unwrap();
    assert_eq!(mesh.up(3).await, before);
    mesh.outlast_timeouts().await;
    assert_eq!(mesh.up(3).await, before);
    mesh.lost_nothing().await;
}
