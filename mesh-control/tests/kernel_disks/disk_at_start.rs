//! Disks that a control plane cannot start on, and where it starts when nobody says.

use std::path::Path;

use crate::answer::{Api, node};
use crate::private_disk::PrivateDisk;
use crate::process::Setup;
use crate::refusal::{content, is_refused, is_refused_leaving, with_nodes};

#[tokio::test]
async fn a_database_on_a_read_only_file_system_is_refused() {
    let setup = Setup::new();
    let folder = setup.folder().join("disk");
    std::fs::create_dir(&folder).unwrap();
    let disk = PrivateDisk::tmpfs(&folder, "4m");
    let setup = setup.with_db_path(folder.join("control.db"));
    with_nodes(&setup).await;
    disk.make_read_only();
    is_refused(&setup, &["Read-only file system", "remount"]);
}

#[tokio::test]
async fn a_database_on_a_full_disk_is_refused() {
    let setup = Setup::new();
    let folder = setup.folder().join("disk");
    std::fs::create_dir(&folder).unwrap();
    let disk = PrivateDisk::tmpfs(&folder, "4m");
    // A new one cannot be created, and leaves nothing half made.
    let setup = setup.with_db_path(folder.join("control.db"));
    let filling = disk.fill();
    is_refused(&setup, &["full", "free some space"]);
    assert_eq!(content(disk.path()).keys().collect::<Vec<_>>(), ["filling"]);
    drop(filling);
    // One that was there is as it was, and comes back when there is space.
    with_nodes(&setup).await;
    let filling = disk.fill();
    let after = is_refused_leaving(&setup, &["full", "free some space"]);
    // SQLite cannot clear its log away without space, but there is nothing in it.
    assert!(after.get("control.db-wal").is_none_or(Vec::is_empty));
    drop(filling);
    let control_plane = setup.start();
    assert_eq!(Api::of(&control_plane).nodes().await.len(), 60);
}

#[tokio::test]
async fn without_a_db_path_the_database_is_under_var_lib() {
    // Over the machine's own, for this test alone.
    let _disk = PrivateDisk::tmpfs(Path::new("/var/lib"), "4m");
    let setup = Setup::new().with_default_db_path();
    let control_plane = setup.start();
    Api::of(&control_plane)
        .register(node("a", "192.0.2.1"))
        .await
        .admitted();
    assert!(Path::new("/var/lib/quilt-mesh/control.db").exists());
}
