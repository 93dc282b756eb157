//! What a registry knows when it is opened again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, net::Ipv4Addr, path::Path};

use mesh_ipam::{
    EndpointPlan, Granted, Ipam, Lifetime, NamedLabels, NetworkNamespace, Owner, Request,
};

fn request(container: &str, lifetime: Lifetime) -> Request {
    Request {
        owner: Owner::new("docker", "quilt", container, "eth0").unwrap(),
        wished: None,
        named: NamedLabels::default(),
        namespace: Some(NetworkNamespace {
            path: "/run/netns/a".into(),
            inode: 4_026_532_000,
        }),
        lifetime,
        endpoint: Some(EndpointPlan {
            link: format!("veth{container}"),
            mac: None,
            mtu: 1450,
            default_route: true,
            published: Vec::new(),
            namespace: None,
            moved_by_engine: false,
        }),
    }
}

fn bound(life: &str) -> Lifetime {
    Lifetime::Life(life.to_owned())
}

async fn allocate(ipam: &Ipam, container: &str, lifetime: Lifetime) -> Granted {
    ipam.allocate(request(container, lifetime)).await.unwrap()
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 1, last)
}

async fn open(directory: &Path, life: &str) -> Ipam {
    let ipam = Ipam::open(directory, life).unwrap();
    ipam.set_subnet("10.42.1.0/29".parse().unwrap())
        .await
        .unwrap();
    ipam
}

#[tokio::test]
async fn in_another_life_what_was_bound_rests_and_the_others_have_no_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = open(dir.path(), "first").await;
    let kept = allocate(&ipam, "kept", Lifetime::Released).await.lease;
    allocate(&ipam, "bound", bound("first")).await;
    assert_eq!(ipam.usage().leased, 2);
    drop(ipam);

    // The same life again: nothing ended.
    let ipam = open(dir.path(), "first").await;
    assert_eq!(ipam.usage().leased, 2);
    assert!(ipam.leases().iter().all(|lease| lease.endpoint.is_some()));
    drop(ipam);

    let ipam = open(dir.path(), "second").await;
    let leases = ipam.leases();
    assert_eq!(leases.len(), 1);
    assert_eq!(
        (&leases[0].owner, leases[0].address),
        (&kept.owner, kept.address)
    );
    assert_eq!(leases[0].endpoint, None);
    let text = fs::read_to_string(dir.path().join("leases")).unwrap();
    assert!(!text.contains("vethbound"), "{text}");
    // An endpoint of this life stays, and what rests comes after all that were never leased.
    let again = allocate(&ipam, "kept", Lifetime::Released).await;
    assert!(!again.new && again.new_endpoint);
    drop(ipam);
    let ipam = open(dir.path(), "second").await;
    assert_eq!(ipam.leases(), [again.lease]);
    for (container, last) in [("a", 4), ("b", 5), ("c", 6), ("d", 3)] {
        let granted = allocate(&ipam, container, bound("second")).await;
        assert_eq!(granted.lease.address, address(last));
    }
}

#[tokio::test]
async fn addresses_go_on_resting_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut ipam = open(dir.path(), "first").await;
    let containers = ["a", "b", "c", "d", "e"];
    for container in containers {
        allocate(&ipam, container, Lifetime::Released).await;
    }
    for container in ["d", "a", "e", "b"] {
        let request = request(container, Lifetime::Released);
        ipam.release(&request.owner, None).await.unwrap().unwrap();
        drop(ipam);
        ipam = open(dir.path(), "first").await;
    }
    // A life that begins writes the file anew.
    drop(ipam);
    let ipam = open(dir.path(), "second").await;
    for last in [5, 2, 6, 3] {
        let granted = allocate(&ipam, &format!("n{last}"), Lifetime::Released).await;
        assert_eq!(granted.lease.address, address(last));
    }
}
