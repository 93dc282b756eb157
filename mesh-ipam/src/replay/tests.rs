use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::{EndpointPlan, Lifetime, NamedLabels, NetworkNamespace, Owner, Request};

const LIFE: &str = "this";

/// A call of a pool, by numbers.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Subnet(u8),
    Allocate {
        owner: u8,
        endpoint: bool,
        bound: bool,
    },
    Release(u8),
}

pub(crate) fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        1 => (1..3_u8).prop_map(Call::Subnet),
        6 => (0..8_u8, any::<bool>(), any::<bool>())
            .prop_map(|(owner, endpoint, bound)| Call::Allocate { owner, endpoint, bound }),
        4 => (0..8_u8).prop_map(Call::Release),
    ]
}

pub(crate) fn owner(number: u8) -> Owner {
    Owner::new("docker", "quilt", &format!("c{number}"), "eth0").unwrap()
}

pub(crate) fn request(number: u8, endpoint: bool, bound: bool) -> Request {
    let plan = EndpointPlan {
        link: format!("veth{number}"),
        mac: None,
        mtu: 1450,
        default_route: true,
        published: Vec::new(),
        namespace: None,
        moved_by_engine: false,
    };
    Request {
        owner: owner(number),
        wished: None,
        named: NamedLabels {
            names: vec!["web".to_owned()],
            // What looks like a line is none.
            labels: [(
                "0123456789abcdef {\"a\":1}".to_owned(),
                "größe\\".to_owned(),
            )]
            .into(),
        },
        namespace: Some(NetworkNamespace {
            path: "/run/netns/x".into(),
            inode: 4_026_532_000,
        }),
        lifetime: match bound {
            true => Lifetime::Life(LIFE.to_owned()),
            false => Lifetime::Released,
        },
        endpoint: endpoint.then_some(plan),
    }
}

pub(crate) fn subnet(number: u8) -> ipnet::Ipv4Net {
    ipnet::Ipv4Net::new(Ipv4Addr::new(10, 42, number, 0), 29).unwrap()
}

/// Makes a call, and returns what it changed.
pub(crate) fn call(pool: &mut Pool, call: &Call) -> Option<crate::Applied> {
    match *call {
        Call::Subnet(number) => pool.set_subnet(subnet(number)).ok()?.applied,
        Call::Allocate {
            owner,
            endpoint,
            bound,
        } => {
            let request = request(owner, endpoint, bound);
            pool.allocate(&request, 7).ok()?.applied
        }
        Call::Release(number) => pool.release(&owner(number), None).ok()?.applied,
    }
}

/// The lines that tell of these calls, and what the pool is after each.
fn journal(calls: &[Call]) -> Vec<(Vec<u8>, Pool)> {
    let mut pool = Pool::default();
    let mut lines = vec![(record::header().into_bytes(), pool.clone())];
    for it in calls {
        if let Some(applied) = call(&mut pool, it) {
            let mut line = Vec::new();
            record::encode(applied.change(), pool.subnet(), LIFE, &mut line).unwrap();
            lines.push((line, pool.clone()));
        }
    }
    lines
}

fn file<'a>(lines: impl IntoIterator<Item = &'a (Vec<u8>, Pool)>) -> Vec<u8> {
    lines
        .into_iter()
        .flat_map(|(line, _)| line)
        .copied()
        .collect()
}

fn read(file: &[u8]) -> Replay {
    replay(file, LIFE).unwrap()
}

proptest! {
    #[test]
    fn a_cut_leaves_what_all_whole_lines_tell(
        calls in prop::collection::vec(any_call(), 0..60), at in any::<prop::sample::Index>(),
    ) {
        let lines = journal(&calls);
        let file = file(&lines);
        let cut = at.index(file.len() + 1);
        let (mut whole, mut expected) = (0, &Pool::default());
        for (line, pool) in &lines {
            if whole + line.len() > cut {
                break;
            }
            whole += line.len();
            expected = pool;
        }
        let read = read(&file[..cut]);
        prop_assert_eq!(&read.pool, expected);
        prop_assert_eq!((read.whole, read.torn), (whole as u64, (cut - whole) as u64));
        prop_assert_eq!(read.damage, None);
        prop_assert!(!read.ended);
    }

    #[test]
    fn a_flipped_byte_loses_no_other_line(
        calls in prop::collection::vec(any_call(), 0..60),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let lines = journal(&calls);
        let mut bytes = file(&lines);
        let at = at.index(bytes.len());
        let (last, is_feed) = (at == bytes.len() - 1, bytes[at] == b'\n');
        bytes[at] ^= flip;
        let mut end = 0;
        let damaged = lines.iter().position(|(line, _)| {
            end += line.len();
            at < end
        });
        let others = lines.iter().enumerate().filter(|&(number, _)| {
            // The header tells nothing. Two lines of which one begins where the other had a line
            // feed are both whole.
            Some(number) != damaged || number == 0 || (is_feed && !last)
        });
        let expected = read(&file(others.map(|(_, line)| line)));
        let found = read(&bytes);
        prop_assert_eq!(found.pool, expected.pool);
        prop_assert_eq!(found.damage.is_some(), !last);
        prop_assert_eq!(found.torn > 0, last);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut file in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(read(&file).pool, Pool::default());
        file.splice(0..0, record::header().into_bytes());
        prop_assert_eq!(read(&file).pool, Pool::default());
    }
}

#[test]
fn a_lease_is_honoured_though_the_line_of_its_subnet_is_lost() {
    let mut lines = journal(&[
        Call::Subnet(1),
        Call::Allocate {
            owner: 1,
            endpoint: true,
            bound: false,
        },
    ]);
    let pool = lines[2].1.clone();
    lines.remove(1);
    assert_eq!(read(&file(&lines)).pool, pool);
}

#[test]
fn another_version_is_told_and_what_follows_is_not_read() {
    let lines = journal(&[Call::Subnet(1)]);
    let newer = [record::header_of("v9").as_bytes(), &file(&lines[1..])].concat();
    let found = read(&newer);
    assert_eq!(found.version.as_deref(), Some("v9"));
    assert_eq!(found.pool, Pool::default());
    // A header without the checksum of one is a damaged header, and the lines count.
    let damaged = [b"quilt-mesh leases v9 \n", &file(&lines[1..])[..]].concat();
    let found = read(&damaged);
    assert_eq!((found.version, found.pool), (None, lines[1].1.clone()));
    assert_eq!(found.damage.unwrap().1, 1);
}

#[test]
fn what_no_pool_can_have_is_damage() {
    let mut bytes = record::header().into_bytes();
    for change in [
        Change::Subnet("10.42.0.0/8".parse().unwrap()),
        Change::Released(Ipv4Addr::new(10, 42, 1, 2)),
    ] {
        record::encode(&change, None, LIFE, &mut bytes).unwrap();
    }
    let read = read(&bytes);
    assert_eq!(read.pool, Pool::default());
    let (first, lines) = read.damage.unwrap();
    assert_eq!(
        (first.as_str(), lines),
        ("line 2: it tells of what no pool can have", 2)
    );
}

#[test]
fn what_ended_with_its_life_is_not_read() {
    let calls = [
        Call::Subnet(1),
        Call::Allocate {
            owner: 1,
            endpoint: true,
            bound: false,
        },
        Call::Allocate {
            owner: 2,
            endpoint: true,
            bound: true,
        },
    ];
    let lines = journal(&calls);
    let mut expected = lines[3].1.clone();
    let changes = expected.begin_life("next");
    assert_eq!(changes.len(), 2);
    let read = replay(&file(&lines)[..], "next").unwrap();
    assert!(read.ended);
    assert_eq!(read.pool, expected);
    let lease = read.pool.lease_of(&owner(1)).unwrap();
    assert_eq!(lease.endpoint, None);
    assert_eq!(read.pool.lease_of(&owner(2)), None);
}
