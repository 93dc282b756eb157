//! A disk that is really full: a tmpfs of 64 KiB, in a mount namespace of this thread's own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path};

use mesh_ipam::{Ipam, IpamError, Lease, Lifetime, NamedLabels, Owner, Request};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const LIFE: &str = "this";

fn request(number: u32) -> Request {
    Request {
        owner: Owner::new("docker", "quilt", &format!("c{number}"), "eth0").unwrap(),
        wished: None,
        named: NamedLabels {
            names: Vec::new(),
            labels: [("what".to_owned(), "x".repeat(900))].into(),
        },
        namespace: None,
        lifetime: Lifetime::Released,
        endpoint: None,
    }
}

/// Runs a test on a tmpfs that nobody else sees, and that goes with the test's thread.
fn on_tmpfs(test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).unwrap();
        let (kind, flags, size) = (Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=700"));
        mount(kind, dir.path(), kind, flags, size).unwrap();
        test(dir.path());
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

async fn lease_until_full(ipam: &Ipam) -> (Vec<Lease>, IpamError) {
    let mut leases = Vec::new();
    for number in 0..250 {
        match ipam.allocate(request(number)).await {
            Ok(granted) => leases.push(granted.lease),
            Err(error) => return (leases, error),
        }
    }
    panic!("250 leases of a kilobyte fit into 64");
}

#[test]
fn a_full_disk_refuses_changes_until_there_is_room() {
    on_tmpfs(|dir| {
        let ballast = dir.join("ballast");
        fs::write(&ballast, vec![1; 24 * 1024]).unwrap();
        let ipam = Ipam::open(dir, LIFE).unwrap();
        runtime().block_on(async {
            ipam.set_subnet("10.42.1.0/24".parse().unwrap())
                .await
                .unwrap();
            let (leases, error) = lease_until_full(&ipam).await;
            assert!(leases.len() > 10, "{error}");
            let text = error.to_string();
            assert!(matches!(error, IpamError::Disk(_)), "{text}");
            assert!(text.contains("No space left on device"), "{text}");
            assert!(text.contains("make room"), "{text}");
            let many = u32::try_from(leases.len()).unwrap();
            // Nothing is taken or given, and what there is can be read.
            for _ in 0..3 {
                let again = ipam.allocate(request(many)).await.unwrap_err();
                assert!(matches!(again, IpamError::Disk(_)), "{again}");
                assert_eq!(ipam.leases(), leases);
            }
            assert_eq!(ipam.allocate(request(0)).await.unwrap().lease, leases[0]);
            // Whoever looks at the file finds what was confirmed.
            let copy = tempfile::tempdir().unwrap();
            fs::copy(dir.join("leases"), copy.path().join("leases")).unwrap();
            assert_eq!(Ipam::open(copy.path(), LIFE).unwrap().leases(), leases);

            fs::remove_file(&ballast).unwrap();
            let granted = ipam.allocate(request(many)).await.unwrap();
            let next = u32::from(leases[leases.len() - 1].address) + 1;
            assert_eq!(u32::from(granted.lease.address), next);
        });
        let leases = ipam.leases();
        drop(ipam);
        assert_eq!(Ipam::open(dir, LIFE).unwrap().leases(), leases);
    });
}

#[test]
fn a_registry_opens_on_a_full_disk_and_works_when_there_is_room() {
    on_tmpfs(|dir| {
        let ballast = dir.join("ballast");
        // As much as goes in.
        fs::write(&ballast, vec![1; 128 * 1024]).unwrap_err();
        let subnet = "10.42.1.0/24".parse().unwrap();
        let ipam = Ipam::open(dir, LIFE).unwrap();
        let error = runtime().block_on(ipam.set_subnet(subnet)).unwrap_err();
        assert!(matches!(error, IpamError::Disk(_)), "{error}");
        assert_eq!(ipam.usage().subnet, None);
        fs::remove_file(&ballast).unwrap();
        runtime().block_on(ipam.set_subnet(subnet)).unwrap();
        drop(ipam);
        let usage = Ipam::open(dir, LIFE).unwrap().usage();
        assert_eq!(usage.subnet, Some(subnet));
    });
}
