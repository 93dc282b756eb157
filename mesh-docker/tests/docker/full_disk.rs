//! A disk that is really full: a small tmpfs below the driver's state directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mesh_testbed::{Daemon, DaemonOptions, Signal};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    container::Step,
    driver::Driver,
    mesh::{SOON, five_of_five, leases, mesh_of, needed, wait_leases},
    remains::Remains,
};

/// A file system of its own that goes when this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn at(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let (kind, flags, size) = (Some("tmpfs"), MsFlags::empty(), Some("size=128k,mode=700"));
        mount(kind, path, kind, flags, size).unwrap();
        Self(path.to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast.log")
    }

    fn fill(&self) {
        let full = fs::write(self.ballast(), vec![1; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_starts_and_everything_ends() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::of(host, &host.runtime_socket());
    let disk = Disk::at(driver.state());
    driver.start().await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    // At each step of a start.
    for failing in [Step::Address, Step::Endpoint, Step::Join] {
        let mut web = network.container("web").await;
        for step in Step::UP.into_iter().take_while(|it| *it != failing) {
            docker.step(host, &mut web, step).await.unwrap();
        }
        disk.fill();
        let said = docker.step(host, &mut web, failing).await.unwrap_err();
        assert!(said.0.contains("No space left on device"), "{said}");
        let undo: &[Step] = match failing {
            Step::Address => &[],
            Step::Endpoint => &[Step::Release],
            _ => &[Step::Delete, Step::Release],
        };
        for step in undo {
            docker.step(host, &mut web, *step).await.unwrap();
        }
        assert!(leases(host).await.is_empty(), "{failing:?}");
        disk.make_room();
        before.wait_again(host).await;
    }
    disk.fill();
    let said = docker.create_network().await.unwrap_err();
    assert!(said.0.contains("No space left on device"), "{said}");
    // A driver that starts on it knows all that it knew.
    disk.make_room();
    let mut web = network.container("web").await.publishing(8080, 80);
    docker.run(host, &mut web).await.unwrap();
    disk.fill();
    driver.restart().await;
    five_of_five(&web.namespace, network.gateway).await;
    docker.stop(host, &mut web).await.unwrap();
    assert!(leases(host).await.is_empty());
    disk.make_room();
    before.wait_again(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_on_a_full_disk_without_a_runtime_goes_once_there_is_one() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let mut driver = Driver::of(host, &host.runtime_socket());
    let disk = Disk::at(driver.state());
    driver.start().await;
    let docker = driver.docker();
    let network = docker.create_network().await.unwrap();
    let before = Remains::of(host).await;
    let mut web = network.container("web").await;
    docker.run(host, &mut web).await.unwrap();
    disk.fill();
    needed(host.stop(Daemon::Runtime, Signal::SIGTERM, SOON).await);
    for step in Step::DOWN {
        let done = docker.step(host, &mut web, step).await;
        if step != Step::Revoke {
            done.unwrap();
        }
    }
    needed(host.start_runtime(&DaemonOptions::new()).await);
    needed(host.wait_joined(SOON).await);
    wait_leases(host, 0).await;
    disk.make_room();
    before.wait_again(host).await;
}
