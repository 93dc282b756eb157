use std::time::Duration;

use super::*;
use crate::probe::path::seen::{Answer, CarriedBy};

fn answered() -> Leg {
    Leg {
        sent: 1,
        answers: vec![Answer {
            round_trip: Duration::from_micros(200),
            out: CarriedBy::FastPath,
            back: CarriedBy::FastPath,
        }],
        largest: Some(1450),
        error: None,
        gateway: true,
    }
}

fn silent_leg() -> Leg {
    Leg {
        sent: 3,
        ..Leg::default()
    }
}

fn host() -> HostSeen {
    HostSeen {
        round_trip: Some(Duration::from_micros(100)),
        largest: Some(1500),
        unserved: false,
        error: None,
    }
}

/// All is well.
fn way() -> Way {
    Way {
        address: Some(Ipv4Addr::new(10, 42, 2, 254)),
        probe_endpoint: true,
        peer: Some(PeerFacts {
            name: "host2".to_owned(),
            host: Some(Ipv4Addr::new(192, 0, 2, 2)),
            unready: None,
            without_fast_path: None,
            vxlan_port: 4789,
            interface: "eth0".to_owned(),
            mtu: Some(1450),
        }),
        no_endpoint: None,
        mtu: 1450,
        container: answered(),
        kernel: answered(),
        host: host(),
        asked: Some((5, 5)),
        searched: true,
    }
}

fn peer(change: impl FnOnce(&mut PeerFacts)) -> Option<PeerFacts> {
    let mut peer = way().peer;
    change(peer.as_mut().unwrap());
    peer
}

fn codes(way: &Way) -> Vec<&'static str> {
    judge(way).iter().map(|problem| problem.kind.code).collect()
}

/// What is said, and it is one thing.
fn said(way: &Way, code: &str) -> String {
    assert_eq!(codes(way), [code], "{:?}", judge(way));
    judge(way)[0].to_string()
}

#[test]
fn where_all_answers_nothing_is_wrong() {
    assert!(judge(&way()).is_empty());
}

#[test]
fn where_nothing_of_the_overlay_answers_the_host_tells_why() {
    let nothing = Way {
        container: silent_leg(),
        kernel: silent_leg(),
        asked: Some((5, 0)),
        ..way()
    };
    let text = said(&nothing, "vxlan-not-through");
    for words in [
        "host2 (192.0.2.2) answers on the underlay over eth0 in 0.10 ms",
        "UDP port 4789",
        "--vxlan-port",
    ] {
        assert!(text.contains(words), "{text}");
    }
    let unserved = HostSeen {
        unserved: true,
        ..host()
    };
    let text = said(
        &Way {
            host: unserved,
            ..nothing.clone()
        },
        "peer-port-unserved",
    );
    assert!(text.contains("nobody serves UDP port 4789 there"), "{text}");
    let down = Way {
        host: HostSeen::default(),
        ..nothing.clone()
    };
    let text = said(&down, "peer-host-silent");
    assert!(
        text.contains("host2 (192.0.2.2) answers neither on the underlay over eth0 nor"),
        "{text}"
    );
    let error = HostSeen {
        error: Some("Network is unreachable (os error 101)".to_owned()),
        ..HostSeen::default()
    };
    let text = said(
        &Way {
            host: error,
            ..nothing.clone()
        },
        "peer-host-silent",
    );
    assert!(
        text.contains("cannot be asked over eth0: Network is unreachable"),
        "{text}"
    );
    let unready = Way {
        peer: peer(|it| it.unready = Some("the route belongs to somebody else".to_owned())),
        ..nothing
    };
    let text = said(&unready, "peer-not-set-up");
    assert!(
        text.contains("the route belongs to somebody else"),
        "{text}"
    );
}

#[test]
fn where_the_bridge_answers_alone_nobody_has_the_address() {
    let gateway = || Leg {
        gateway: true,
        ..silent_leg()
    };
    let alone = Way {
        container: gateway(),
        kernel: gateway(),
        asked: Some((5, 0)),
        ..way()
    };
    let text = said(&alone, "peer-without-probes");
    assert!(
        text.contains("host2 answers over the overlay, but nobody has 10.42.2.254 there"),
        "{text}"
    );
    assert!(
        is_fine(&judge(&alone)),
        "an earlier version is no fault of the way"
    );
    let container = Way {
        probe_endpoint: false,
        ..alone
    };
    said(&container, "no-such-endpoint");
    assert!(!is_fine(&judge(&container)));
}

#[test]
fn a_path_that_is_silent_alone_is_named() {
    let fast = Way {
        container: silent_leg(),
        ..way()
    };
    said(&fast, "fast-path-silent");
    let kernel = Way {
        kernel: silent_leg(),
        ..way()
    };
    said(&kernel, "kernel-path-silent");
    // Not tried is not silent.
    let untried = Way {
        container: Leg {
            error: Some("this node has no endpoint for probes".to_owned()),
            ..Leg::default()
        },
        no_endpoint: Some("it is about to be made".to_owned()),
        ..way()
    };
    said(&untried, "no-probe-endpoint");
    assert!(is_fine(&judge(&untried)));
}

#[test]
fn packets_that_do_not_come_through_are_told_with_the_mtu_that_would_do() {
    let small = |largest| Leg {
        largest,
        ..answered()
    };
    let hole = Way {
        container: small(Some(1350)),
        kernel: small(Some(1350)),
        ..way()
    };
    let text = said(&hole, "path-mtu-small");
    for words in [
        "packets of more than 1350 bytes do not get there and back as containers send",
        "host2 send up to 1450",
        "to 1500 bytes",
        "ip link set eth0 mtu 1400",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let none = Way {
        container: small(None),
        ..way()
    };
    let text = said(&none, "path-mtu-small");
    assert!(text.contains("576 bytes and more do not"), "{text}");
    // What a peer has told that it does not take, nobody sends.
    let told = Way {
        peer: peer(|it| it.mtu = Some(1350)),
        ..hole
    };
    assert!(judge(&told).is_empty(), "{:?}", judge(&told));
    // What was not looked for is not missing.
    let unsearched = Way {
        container: small(None),
        searched: false,
        ..way()
    };
    assert!(judge(&unsearched).is_empty());
}

#[test]
fn packets_that_come_through_in_fragments_are_told() {
    let host = HostSeen {
        largest: Some(1400),
        ..host()
    };
    let text = said(&Way { host, ..way() }, "outer-fragments");
    assert!(
        text.contains("192.0.2.2 takes packets of 1400 bytes whole, and VXLAN to host2 needs 1500"),
        "{text}"
    );
    // A host that answers no pings says nothing of that.
    let mute = Way {
        host: HostSeen::default(),
        ..way()
    };
    assert!(judge(&mute).is_empty());
}

#[test]
fn a_fast_path_that_is_not_used_is_a_notice_with_the_reason() {
    let off = Way {
        peer: peer(|it| it.without_fast_path = Some("--fast-path off".to_owned())),
        ..way()
    };
    let text = said(&off, "path-not-fast");
    assert!(
        text.contains("takes the kernel path: --fast-path off"),
        "{text}"
    );
    assert!(is_fine(&judge(&off)));
}

#[test]
fn questions_that_were_lost_are_counted() {
    let lossy = Way {
        asked: Some((10, 8)),
        ..way()
    };
    let text = said(&lossy, "path-lossy");
    assert!(text.contains("2 of 10 questions to host2"), "{text}");
    assert!(!is_fine(&judge(&lossy)));
}

#[test]
fn an_address_of_this_node_that_nobody_answers_at_is_told() {
    let local = Way {
        address: Some(Ipv4Addr::new(10, 42, 1, 9)),
        probe_endpoint: false,
        peer: None,
        container: silent_leg(),
        kernel: Leg::default(),
        host: HostSeen::default(),
        asked: Some((5, 0)),
        ..way()
    };
    let text = said(&local, "no-such-endpoint");
    assert!(
        text.contains("nobody answers at 10.42.1.9 on this node"),
        "{text}"
    );
    let there = Way {
        container: answered(),
        asked: None,
        ..local
    };
    assert!(judge(&there).is_empty());
}

#[test]
fn the_gravest_comes_first() {
    let much = Way {
        kernel: silent_leg(),
        container: Leg {
            largest: Some(1000),
            ..answered()
        },
        no_endpoint: Some("none".to_owned()),
        peer: peer(|it| it.without_fast_path = Some("none".to_owned())),
        ..way()
    };
    let severities: Vec<Severity> = judge(&much).iter().map(|it| it.kind.severity).collect();
    assert!(
        severities.is_sorted_by(|one, another| one >= another),
        "{severities:?}"
    );
    assert_eq!(severities.len(), 4);
}
