//! Many callers at once, and what one of them sees of the others.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mesh_ipam::{
    Endpoint, Exhausted, Ipam, IpamError, Lifetime, NamedLabels, Owner, Refusal, Request,
};
use tokio::task::JoinSet;

const LIFE: &str = "this";

fn owner(container: &str) -> Owner {
    Owner::new("docker", "quilt", container, "eth0").unwrap()
}

fn request(container: &str) -> Request {
    Request {
        owner: owner(container),
        wished: None,
        named: NamedLabels::default(),
        namespace: None,
        lifetime: Lifetime::Released,
        endpoint: None,
    }
}

async fn open(directory: &std::path::Path, subnet: &str) -> Ipam {
    let ipam = Ipam::open(directory, LIFE).unwrap();
    ipam.set_subnet(subnet.parse().unwrap()).await.unwrap();
    ipam
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_address_is_held_by_two_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // Fewer addresses than callers: they contend for each.
    let ipam = open(dir.path(), "10.42.1.0/26").await;
    let held: Arc<Vec<AtomicBool>> = Arc::new((0..256).map(|_| AtomicBool::new(false)).collect());
    let mut tasks = JoinSet::new();
    for caller in 0..64 {
        let (ipam, held) = (ipam.clone(), Arc::clone(&held));
        tasks.spawn(async move {
            let mut done = 0;
            while done < 1000 {
                let request = request(&format!("c{caller}"));
                let lease = match ipam.allocate(request).await {
                    Ok(granted) => granted.lease,
                    // Others have them all.
                    Err(IpamError::Refused(Refusal::Exhausted(Exhausted { leased, .. }))) => {
                        assert_eq!(leased, 61);
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                let mark = &held[usize::from(lease.address.octets()[3])];
                assert!(
                    !mark.swap(true, Ordering::SeqCst),
                    "{} twice",
                    lease.address
                );
                assert_eq!(ipam.lease_at(lease.address).as_ref(), Some(&lease));
                assert!(mark.swap(false, Ordering::SeqCst));
                let ended = ipam.release(&lease.owner, Some(lease.address)).await;
                assert_eq!(ended.unwrap().as_ref(), Some(&lease));
                done += 1;
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    assert_eq!(ipam.usage().leased, 0);
    assert_eq!(ipam.leases(), []);
    ipam.close().await;
    drop(ipam);
    assert_eq!(Ipam::open(dir.path(), LIFE).unwrap().leases(), []);
}

#[tokio::test]
async fn what_is_in_use_without_a_lease_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = open(dir.path(), "10.42.1.0/29").await;
    let address = |last| Ipv4Addr::new(10, 42, 1, last);
    let by_hand = [2, 3, 5].map(|last| (address(last), format!("veth{last}")));
    ipam.occupy(by_hand.into());
    let granted = |granted: Result<mesh_ipam::Granted, IpamError>| {
        granted.map(|granted| granted.lease.address)
    };
    assert_eq!(granted(ipam.allocate(request("a")).await), Ok(address(4)));
    assert_eq!(granted(ipam.allocate(request("b")).await), Ok(address(6)));
    let error = ipam.allocate(request("c")).await.unwrap_err().to_string();
    assert!(error.contains("of 5, 2 are held"), "{error}");
    assert!(error.contains("3 are in use without a lease"), "{error}");
    ipam.occupy(BTreeMap::from([(address(2), "veth2".to_owned())]));
    assert_eq!(granted(ipam.allocate(request("c")).await), Ok(address(3)));
}

#[tokio::test]
async fn whoever_watches_is_told_of_every_change_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = open(dir.path(), "10.42.1.0/24").await;
    let mut changes = ipam.subscribe();
    let before = *changes.borrow_and_update();
    let granted = ipam.allocate(request("a")).await.unwrap();
    assert!(granted.new && *changes.borrow_and_update() > before);
    assert_eq!(ipam.lease_of(&owner("a")), Some(granted.lease.clone()));

    let again = ipam.allocate(request("a")).await.unwrap();
    assert_eq!((again.lease, again.new), (granted.lease, false));
    ipam.release(&owner("nobody"), None).await.unwrap();
    assert!(!changes.has_changed().unwrap());

    let endpoint = Endpoint {
        link: "veth1".to_owned(),
        mac: [2, 0x53, 10, 42, 1, 2],
        mtu: 1450,
        default_route: true,
        published: Vec::new(),
        settled: true,
        namespace: None,
        moved_by_engine: false,
        leased_along: false,
    };
    let holder = owner("a");
    let set = |endpoint| ipam.set_endpoint(&holder, endpoint);
    let lease = set(Some(endpoint.clone())).await.unwrap();
    assert_eq!(lease.endpoint, Some(endpoint.clone()));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    set(Some(endpoint)).await.unwrap();
    assert!(!changes.has_changed().unwrap());
    assert_eq!(set(None).await.unwrap().endpoint, None);
    let error = ipam.set_endpoint(&owner("b"), None).await.unwrap_err();
    assert_eq!(error, IpamError::Refused(Refusal::NoLease(owner("b"))));

    let named = NamedLabels {
        names: vec!["web".to_owned()],
        ..NamedLabels::default()
    };
    let renamed = Request {
        named: named.clone(),
        ..request("a")
    };
    let granted = ipam.allocate(renamed).await.unwrap();
    assert_eq!((granted.lease.named, granted.new), (named.clone(), false));
    drop(ipam);
    let lease = Ipam::open(dir.path(), LIFE).unwrap().lease_of(&owner("a"));
    assert_eq!(lease.unwrap().named, named);
}

#[tokio::test]
async fn a_closed_registry_answers_what_came_before_and_nothing_after() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = open(dir.path(), "10.42.1.0/24").await;
    let mut tasks = JoinSet::new();
    for caller in 0..32 {
        let ipam = ipam.clone();
        tasks.spawn(async move { ipam.allocate(request(&format!("c{caller}"))).await });
    }
    let (one, another) = (ipam.clone(), ipam.clone());
    tokio::join!(one.close(), another.close());
    let mut leases = 0;
    while let Some(result) = tasks.join_next().await {
        match result.unwrap() {
            Ok(_) => leases += 1,
            Err(error) => assert_eq!(error, IpamError::Closed),
        }
    }
    let error = ipam.allocate(request("late")).await.unwrap_err();
    assert_eq!(error, IpamError::Closed);
    assert_eq!(ipam.leases().len(), leases);
    assert_eq!(Ipam::open(dir.path(), LIFE).unwrap().leases().len(), leases);
}

#[tokio::test]
async fn nothing_is_leased_before_there_is_a_subnet() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = Ipam::open(dir.path(), LIFE).unwrap();
    let error = ipam.allocate(request("a")).await.unwrap_err().to_string();
    assert!(error.contains("this node has no subnet yet: "), "{error}");
    assert_eq!(ipam.release(&owner("a"), None).await, Ok(None));
}
