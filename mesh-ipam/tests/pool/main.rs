//! The pool against its rules written down without thought of speed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_ipam::{EndpointPlan, Lifetime, NamedLabels, Owner, Pool, Published, Request};
use model::{Held, Model, held, published};
use proptest::prelude::*;

mod model;

#[derive(Clone, Debug)]
enum Call {
    Subnet(Ipv4Net),
    Allocate {
        owner: Owner,
        wished: Option<Ipv4Addr>,
        name: String,
        port: Option<u16>,
    },
    Release(Owner, Option<Ipv4Addr>),
    Occupy(BTreeMap<Ipv4Addr, String>),
}

/// Makes a call of both. Returns what the pool changed.
fn call(pool: &mut Pool, model: &mut Model, call: &Call) -> Option<mesh_ipam::Applied> {
    match call {
        Call::Subnet(subnet) => {
            let done = pool.set_subnet(*subnet);
            let expected = model.set_subnet(*subnet);
            assert_eq!(done.as_ref().map(|_| ()), expected.as_ref().map(|_| ()));
            done.ok()?.applied
        }
        Call::Allocate {
            owner,
            wished,
            name,
            port,
        } => {
            let plan = |port| EndpointPlan {
                link: "veth1".to_owned(),
                mac: None,
                mtu: 1450,
                default_route: true,
                published: vec![published(port)],
                namespace: None,
                moved_by_engine: false,
            };
            let request = Request {
                owner: owner.clone(),
                wished: *wished,
                named: NamedLabels {
                    names: vec![name.clone()],
                    labels: BTreeMap::new(),
                },
                namespace: None,
                lifetime: Lifetime::Released,
                endpoint: port.map(plan),
            };
            let done = pool.allocate(&request, 0);
            let answer = done.as_ref().map(|done| &done.answer);
            let answer = answer.map(|granted| (held(&granted.lease), granted.new));
            let expected = model.allocate(owner, *wished, name, *port);
            assert_eq!(answer.map_err(Clone::clone), expected);
            done.ok()?.applied
        }
        Call::Release(owner, address) => {
            let done = pool.release(owner, *address);
            let answer = done.as_ref().map(|done| done.answer.as_ref().map(held));
            let expected = model.release(owner, *address);
            assert_eq!(answer.map_err(Clone::clone), expected);
            done.ok()?.applied
        }
        Call::Occupy(occupied) => {
            pool.occupy(occupied.clone());
            model.occupied = occupied.clone();
            None
        }
    }
}

fn check(pool: &Pool, model: &Model) {
    let mut expected = model.held.clone();
    expected.sort_by_key(|held| held.address);
    let leases: Vec<Held> = pool.leases().map(held).collect();
    assert_eq!(leases, expected);
    for held in &leases {
        let lease = pool.lease_of(&held.owner).unwrap();
        assert_eq!(lease.address, held.address);
        assert_eq!(pool.lease_at(held.address), Some(lease));
    }
    assert_eq!(pool.usage().leased as usize, leases.len());
    assert_eq!(pool.usage().subnet, model.subnet);
}

/// Two subnets of five and thirteen addresses.
fn any_subnet() -> impl Strategy<Value = Ipv4Net> {
    prop_oneof![Just("10.42.1.0/29"), Just("10.42.1.16/28")].prop_map(|text| text.parse().unwrap())
}

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    (0..36_u8).prop_map(|last| Ipv4Addr::new(10, 42, 1, last))
}

fn any_owner() -> impl Strategy<Value = Owner> {
    let engine = prop_oneof![Just("docker"), Just("podman")];
    (engine, 0..10_u8).prop_map(|(engine, number)| {
        Owner::new(engine, "quilt", &format!("c{number}"), "eth0").unwrap()
    })
}

fn any_call() -> impl Strategy<Value = Call> {
    let wished = prop::option::weighted(0.3, any_address());
    let address = prop::option::weighted(0.2, any_address());
    let port = prop::option::weighted(0.3, 8000..8006_u16);
    let occupied = prop::collection::btree_map(any_address(), "veth[0-9]", 0..4);
    prop_oneof![
        1 => any_subnet().prop_map(Call::Subnet),
        12 => (any_owner(), wished, "[ab]", port).prop_map(|(owner, wished, name, port)| {
            Call::Allocate { owner, wished, name, port }
        }),
        8 => (any_owner(), address).prop_map(|(owner, address)| Call::Release(owner, address)),
        2 => occupied.prop_map(Call::Occupy),
    ]
}

proptest! {
    #[test]
    fn the_pool_answers_as_its_rules_say(calls in prop::collection::vec(any_call(), 0..120)) {
        let (mut pool, mut model) = (Pool::default(), Model::default());
        for it in &calls {
            call(&mut pool, &mut model, it);
            check(&pool, &model);
        }
        // What is left is handed out in the order that the model says, to the last address.
        while pool.usage().subnet.is_some() {
            let left = pool.usage().leased;
            let owner = Owner::new("cni", "rest", &format!("c{left}"), "eth0").unwrap();
            let name = "rest".to_owned();
            let it = Call::Allocate { owner, wished: None, name, port: None };
            if call(&mut pool, &mut model, &it).is_none() {
                break;
            }
        }
        check(&pool, &model);
    }

    #[test]
    fn what_is_undone_never_was(
        before in prop::collection::vec(any_call(), 0..60),
        undone in prop::collection::vec(any_call(), 0..30),
    ) {
        let (mut pool, mut model) = (Pool::default(), Model::default());
        before.iter().for_each(|it| drop(call(&mut pool, &mut model, it)));
        let expected = pool.clone();
        let undone = undone.iter().filter(|it| !matches!(it, Call::Occupy(_)));
        let applied: Vec<_> = undone.filter_map(|it| call(&mut pool, &mut model, it)).collect();
        applied.into_iter().rev().for_each(|applied| pool.undo(applied));
        prop_assert_eq!(pool, expected);
    }

    #[test]
    fn a_pool_is_made_again_from_its_changes(
        calls in prop::collection::vec(any_call(), 0..80),
        after in prop::collection::vec(any_call(), 0..40),
    ) {
        let (mut pool, mut model) = (Pool::default(), Model::default());
        calls.iter().for_each(|it| drop(call(&mut pool, &mut model, it)));
        let mut again = Pool::default();
        for change in pool.changes() {
            prop_assert!(again.restore(change));
        }
        again.occupy(model.occupied.clone());
        check(&again, &model);
        after.iter().for_each(|it| drop(call(&mut again, &mut model, it)));
        check(&again, &model);
    }
}

#[test]
fn a_refused_wish_names_who_is_in_the_way() {
    let mut pool = Pool::default();
    let mut model = Model::default();
    let owner = |id| Owner::new("docker", "quilt", id, "eth0").unwrap();
    let wish = |id, last| Call::Allocate {
        owner: owner(id),
        wished: Some(Ipv4Addr::new(10, 42, 1, last)),
        name: "web".to_owned(),
        port: None,
    };
    call(
        &mut pool,
        &mut model,
        &Call::Subnet("10.42.1.0/24".parse().unwrap()),
    );
    call(&mut pool, &mut model, &wish("3f", 7));
    let occupied = [(Ipv4Addr::new(10, 42, 1, 9), "vethX".to_owned())];
    pool.occupy(occupied.into());
    let request = |id, last: u8| Request {
        owner: owner(id),
        wished: Some(Ipv4Addr::new(10, 42, 1, last)),
        named: NamedLabels::default(),
        namespace: None,
        lifetime: Lifetime::Released,
        endpoint: None,
    };
    for (id, last, words) in [
        (
            "4f",
            7,
            "address 10.42.1.7 is held by docker/quilt/3f/eth0 (web)",
        ),
        (
            "4f",
            9,
            "is in use by the container behind vethX, which has no lease",
        ),
        (
            "4f",
            1,
            "address 10.42.1.1 of 10.42.1.0/24 is the node's own address",
        ),
        ("4f", 0, "the address of the network itself"),
        ("4f", 255, "the broadcast address"),
        (
            "3f",
            8,
            "docker/quilt/3f/eth0 holds address 10.42.1.7, not 10.42.1.8",
        ),
    ] {
        let error = pool.allocate(&request(id, last), 0).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = pool
        .set_subnet("10.42.2.0/24".parse().unwrap())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the subnet cannot become 10.42.2.0/24: 1 address of 10.42.1.0/24 is leased \
         (docker/quilt/3f/eth0); release them first"
    );
}

#[test]
fn published_ranges_are_compared_wherever_they_begin() {
    let mut pool = Pool::default();
    pool.set_subnet("10.42.1.0/24".parse().unwrap()).unwrap();
    let mut try_range = |id: &str, host_port, count, address: Option<&str>| {
        let range = Published {
            host_address: address.map(|text| text.parse().unwrap()),
            count,
            ..published(host_port)
        };
        let request = Request {
            owner: Owner::new("docker", "quilt", id, "eth0").unwrap(),
            wished: None,
            named: NamedLabels::default(),
            namespace: None,
            lifetime: Lifetime::Released,
            endpoint: Some(EndpointPlan {
                link: "veth1".to_owned(),
                mac: None,
                mtu: 1450,
                default_route: false,
                published: vec![range],
                namespace: None,
                moved_by_engine: false,
            }),
        };
        pool.allocate(&request, 0).map(|done| done.answer)
    };
    let granted = try_range("a", 8000, 1024, None).unwrap();
    let endpoint = granted.lease.endpoint.unwrap();
    assert_eq!(endpoint.mac, [0x02, 0x53, 10, 42, 1, 2]);
    assert!(granted.new_endpoint && !endpoint.settled);
    let error = try_range("b", 9023, 1, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "published ports 9023:80/tcp share a port of the host with 8000-9023:80-1103/tcp of \
         docker/quilt/a/eth0"
    );
    assert!(try_range("b", 7990, 11, Some("192.0.2.1")).is_err());
    try_range("b", 9024, 1, None).unwrap();
    try_range("c", 7000, 1, Some("192.0.2.1")).unwrap();
    try_range("d", 7000, 1, Some("192.0.2.2")).unwrap();
    assert!(try_range("e", 6990, 11, None).is_err());
    // The owner's own ranges are in nobody's way, and its endpoint stays as it is.
    let again = try_range("a", 1000, 1, None).unwrap();
    assert!(!again.new && !again.new_endpoint);
    assert_eq!(again.lease.endpoint.unwrap().published[0].host_port, 8000);
}

#[test]
fn a_mac_address_is_that_of_one_endpoint_and_none_of_the_meshs_own() {
    let mut pool = Pool::default();
    pool.set_subnet("10.42.1.0/24".parse().unwrap()).unwrap();
    let mut try_mac = |id: &str, mac: [u8; 6]| {
        let request = Request {
            owner: Owner::new("docker", "quilt", id, "eth0").unwrap(),
            wished: None,
            named: NamedLabels::default(),
            namespace: None,
            lifetime: Lifetime::Released,
            endpoint: Some(EndpointPlan {
                link: "veth1".to_owned(),
                mac: Some(mac),
                mtu: 1450,
                default_route: true,
                published: Vec::new(),
                namespace: None,
                moved_by_engine: false,
            }),
        };
        let done = pool.allocate(&request, 0);
        done.map(drop).map_err(|error| error.to_string())
    };
    try_mac("a", [0x02, 0x42, 0, 0, 0, 1]).unwrap();
    let error = try_mac("b", [0x02, 0x42, 0, 0, 0, 1]).unwrap_err();
    assert!(error.contains("02:42:00:00:00:01 is that of docker/quilt/a/eth0"));
    for (second, host) in [(0x51, 0), (0x52, 0), (0x53, 9)] {
        let error = try_mac("b", [0x02, second, 10, 42, 1, host]).unwrap_err();
        assert!(error.contains("the mesh's own"), "{error}");
    }
    // That of the address which it gets.
    try_mac("b", [0x02, 0x53, 10, 42, 1, 3]).unwrap();
    try_mac("a", [0x02, 0x42, 0, 0, 0, 1]).unwrap();
}
