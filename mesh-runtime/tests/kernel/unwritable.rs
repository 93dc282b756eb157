//! A state directory that cannot be written when the runtime starts.

use std::{fs, path::Path};

use mesh_client::Client;
use mesh_testbed::Signal;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    attach::{attach, leased, names, namespace, owner, refusal, request},
    host::Host,
};

/// A file system of its own in the place of a directory.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn at(directory: &'a Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let none = None::<&str>;
        mount(
            Some("tmpfs"),
            directory,
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        Self(directory)
    }

    fn remount(&self, flags: MsFlags) {
        let none = None::<&str>;
        mount(none, self.0, none, MsFlags::MS_REMOUNT | flags, none).unwrap();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

async fn connect(host: &Host) -> Client {
    Client::connect(&host.socket()).await.unwrap()
}

/// As after an error of the disk, for which the kernel makes a file system read-only.
#[tokio::test]
async fn what_is_attached_keeps_its_guards_where_leases_can_only_be_read() {
    let host = Host::new("read-only").await;
    let directory = host.state_dir();
    let mounted = Mounted::at(&directory);
    let arguments = ["--host-ip", "192.0.2.1"];
    let mut daemon = host.start_with("off", &arguments).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let mut client = connect(&host).await;
    let (web, attached) = attach(&mut client, "web").await;
    let strict = || {
        let mut nft = host.netns.command("nft");
        let listed = nft.args(["list", "set", "bridge", "quilt_mesh", "strict"]);
        let listed = String::from_utf8(listed.output().unwrap().stdout).unwrap();
        listed.contains(&attached.endpoint.interface)
    };
    assert!(strict());
    daemon.end(Signal::SIGTERM).await;
    mounted.remount(MsFlags::MS_RDONLY);

    let mut daemon = host.start_with("off", &arguments).await;
    let mut client = connect(&host).await;
    assert_eq!(leased(&mut client).await, 1);
    assert!(strict());
    let status = daemon.status().await;
    assert_eq!(status.endpoints, std::slice::from_ref(&attached.endpoint));
    for refused in [
        refusal(client.detach(owner("web")).await),
        refusal(client.attach(request("db", &namespace("db").await)).await),
    ] {
        assert!(refused.contains("Read-only file system"), "{refused}");
        assert!(refused.contains("started anew"), "{refused}");
    }
    assert_eq!(names(&web), ["lo", "eth0"]);
    daemon.end(Signal::SIGTERM).await;
    mounted.remount(MsFlags::empty());

    let _daemon = host.start_with("off", &arguments).await;
    let mut client = connect(&host).await;
    client.detach(owner("web")).await.unwrap();
    assert_eq!(names(&web), ["lo"]);
}
