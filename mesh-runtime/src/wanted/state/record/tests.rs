use proptest::prelude::*;

use super::*;
use crate::options::RuntimeOptions;

fn cluster() -> Cluster {
    Cluster::from(&RuntimeOptions::default())
}

fn life() -> Life {
    Life {
        boot: "8c2f".to_owned(),
        namespace: 4_026_531_840,
    }
}

fn net(third: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24)
}

prop_compose! {
    fn any_wanted()(
        subnet in prop::option::weighted(0.8, Just(net(1))),
        host_address in prop::option::of(Just(Ipv4Addr::new(192, 0, 2, 1))),
        generation: u64,
        peers in prop::collection::btree_map(
            2..60_u8,
            (".{0,12}", any::<bool>(), prop::option::of(MTU_RANGE)),
            0..8,
        ),
        injected in prop::collection::btree_set((2..60_u8).prop_map(net), 0..4),
        endpoints in prop::collection::btree_map(
            (2..250_u8).prop_map(|host| Ipv4Addr::new(10, 42, 1, host)),
            (any::<u32>(), ".{0,15}", any::<Option<Mac>>()),
            0..4,
        ),
        own_bridge: Option<u32>,
    ) -> Wanted {
        Wanted {
            subnet,
            host_address,
            node_settings: NodeSettings::default(),
            generation,
            peers: peers
                .into_iter()
                .map(|(third, (hostname, suspect, mtu))| {
                    let address = Ipv4Addr::new(192, 0, 2, third);
                    (net(third), Peer { address, hostname, suspect, mtu })
                })
                .collect::<BTreeMap<_, _>>()
                .into(),
            injected: Arc::new(injected),
            endpoints: endpoints
                .into_iter()
                .map(|(address, (link, interface, mac))| {
                    (address, AttachedEndpoint { link, interface, mac, strict: false })
                })
                .collect(),
            published: BTreeSet::new(),
            own_bridge,
            bridge_ports: BTreeSet::new(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_exactly(wanted in any_wanted()) {
        let file = encode(&wanted, &cluster(), &life());
        prop_assert_eq!(decode(&file, &cluster(), &life()), Ok(wanted));
    }

    #[test]
    fn no_truncation_is_taken_for_a_file(wanted in any_wanted(), at in any::<prop::sample::Index>()) {
        let file = encode(&wanted, &cluster(), &life());
        prop_assert!(decode(&file[..at.index(file.len())], &cluster(), &life()).is_err());
    }

    #[test]
    fn no_flipped_bit_is_taken_for_a_file(
        wanted in any_wanted(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let mut file = encode(&wanted, &cluster(), &life());
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(decode(&file, &cluster(), &life()).is_err());
    }

    #[test]
    fn nothing_that_follows_a_file_is_taken_for_part_of_it(
        wanted in any_wanted(), more in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut file = encode(&wanted, &cluster(), &life());
        file.extend(more);
        prop_assert_eq!(
            decode(&file, &cluster(), &life()),
            Err(RecordError::Checksum)
        );
    }

    #[test]
    fn no_bytes_make_the_reader_panic(file in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&file, &cluster(), &life()).is_err());
    }
}

/// A file whose checksum is right and whose content is somebody's idea.
fn forged(content: &str) -> Result<Wanted, RecordError> {
    let header = format!(
        "{MAGIC}{VERSION} sha256={} length={}\n",
        checksum(content.as_bytes()),
        content.len()
    );
    decode(format!("{header}{content}").as_bytes(), &cluster(), &life())
}

#[test]
fn interface_indexes_of_another_life_are_forgotten() {
    let endpoint = AttachedEndpoint {
        link: 7,
        interface: "veth7".to_owned(),
        mac: None,
        strict: false,
    };
    let wanted = Wanted {
        subnet: Some(net(1)),
        own_bridge: Some(3),
        endpoints: [(Ipv4Addr::new(10, 42, 1, 7), endpoint)].into(),
        ..Wanted::default()
    };
    let file = encode(&wanted, &cluster(), &life());
    let next = Life {
        boot: "another".to_owned(),
        ..life()
    };
    let read = decode(&file, &cluster(), &next).unwrap();
    assert_eq!(read.subnet, wanted.subnet);
    assert_eq!(read.own_bridge, None);
    assert!(read.endpoints.is_empty());
}

#[test]
fn a_file_of_another_cluster_or_version_is_refused_by_name() {
    let file = encode(&Wanted::default(), &cluster(), &life());
    let other = Cluster {
        cidr: "172.16.0.0/12".parse().unwrap(),
        node_prefix: 24,
    };
    let error = decode(&file, &other, &life()).unwrap_err().to_string();
    assert!(
        error.contains("10.42.0.0/16") && error.contains("172.16.0.0/12"),
        "{error}"
    );
    let newer = String::from_utf8(file).unwrap().replacen(" v1 ", " v2 ", 1);
    assert_eq!(
        decode(newer.as_bytes(), &cluster(), &life()),
        Err(RecordError::Version("v2".to_owned()))
    );
}

#[test]
fn members_that_are_missing_have_their_defaults_and_unknown_ones_are_passed_over() {
    let content = r#"{"cluster":"10.42.0.0/16","node_prefix":24,"later":[1]}"#;
    assert_eq!(forged(content), Ok(Wanted::default()));
}

#[test]
fn what_no_call_could_have_made_is_refused() {
    for (members, rule) in [
        (
            r#""peers":[{"subnet":"10.42.2.0/24","host_address":"192.0.2.2","mtu":9}]"#,
            "9 is no peer's MTU",
        ),
        (r#""node_settings":{"vxlan_port":0}"#, "vxlan_port 0"),
        (r#""node_settings":{"vni":16777216}"#, "vni 16777216"),
        (r#""injected":["10.43.2.0/24"]"#, "no node's subnet"),
        (r#""subnet":"10.42.0.0/24""#, "no node's subnet"),
        (
            r#""peers":[{"subnet":"10.42.2.0/24","host_address":"127.0.0.1"}]"#,
            "loopback",
        ),
        (r#""peers":7"#, "cannot be read"),
    ] {
        let content = format!(r#"{{"cluster":"10.42.0.0/16","node_prefix":24,{members}}}"#);
        let error = forged(&content).unwrap_err().to_string();
        assert!(error.contains(rule), "{members}: {error}");
    }
}
