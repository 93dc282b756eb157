//! A node that takes no new containers.

#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

use mesh_ipam::{Ipam, IpamError, Lifetime, NamedLabels, Owner, Refusal, Request};

fn request(container: &str) -> Request {
    Request {
        owner: Owner::new("podman", "quilt", container, "eth0").unwrap(),
        wished: None,
        named: NamedLabels::default(),
        namespace: None,
        lifetime: Lifetime::Released,
        endpoint: None,
    }
}

#[tokio::test]
async fn nothing_new_is_leased_also_after_a_restart_and_who_has_something_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Ipam::open(dir.path(), "this").unwrap();
    let ipam = open();
    ipam.set_subnet("10.42.1.0/24".parse().unwrap())
        .await
        .unwrap();
    let web = ipam.allocate(request("web")).await.unwrap().lease;
    let since = ipam.set_drained(true).await.unwrap();
    assert!(since.is_some());
    assert_eq!(ipam.set_drained(true).await.unwrap(), since);
    let mut ipam = ipam;
    for life in ["this", "the next"] {
        assert_eq!(ipam.drained(), since, "{life}");
        let refused = ipam.allocate(request("db")).await.unwrap_err();
        assert_eq!(refused, IpamError::Refused(Refusal::Drained), "{life}");
        assert_eq!(ipam.allocate(request("web")).await.unwrap().lease, web);
        ipam.close().await;
        ipam = open();
    }
    ipam.release(&web.owner, None).await.unwrap();
    let refused = ipam.allocate(request("web")).await.unwrap_err();
    assert_eq!(refused, IpamError::Refused(Refusal::Drained));
    assert_eq!(ipam.set_drained(false).await.unwrap(), None);
    assert_eq!(ipam.set_drained(false).await.unwrap(), None);
    ipam.allocate(request("db")).await.unwrap();
    ipam.close().await;
    assert_eq!(open().drained(), None);
}
