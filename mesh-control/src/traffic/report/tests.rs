use axum::response::IntoResponse as _;
use proptest::prelude::*;
use serde_json::Value;

use serde_json::json;

use super::*;
use crate::http::limits::REPORT;

fn refused(json: &str) -> (u16, String) {
    let problem = Report::from_json(json.as_bytes()).unwrap_err();
    let status = problem.kind().status();
    (status, format!("{problem:?}"))
}

#[test]
fn an_empty_object_or_null_is_a_report_without_content() {
    assert_eq!(Report::from_json(b"null").unwrap(), Report::default());
    assert_eq!(Report::from_json(b"{}").unwrap(), Report::default());
}

#[test]
fn fields_of_a_newer_agent_are_ignored() {
    let json = br#"{"weather":"fine","peers":[{"subnet":"10.42.2.0/24","tx_packets":3,"new":[]}]}"#;
    let report = Report::from_json(json).unwrap();
    assert_eq!(report.peers.len(), 1);
    assert_eq!(report.peers[0].1.tx_packets, 3);
}

#[test]
fn peers_without_traffic_are_not_kept_and_the_others_are_in_order() {
    let json = br#"{"peers":[
        {"subnet":"10.42.9.0/24","rx_bytes":1},{"subnet":"10.42.3.0/24"},
        {"subnet":"10.42.2.0/24","suspect":true},{"subnet":"10.42.9.0/24","rx_bytes":2}]}"#;
    let report = Report::from_json(json).unwrap();
    let kept: Vec<String> = report.peers.iter().map(|peer| peer.0.to_string()).collect();
    assert_eq!(kept, ["10.42.2.0/24", "10.42.9.0/24"]);
    assert_eq!(report.peers[1].1.rx_bytes, 1);
}

#[test]
fn what_is_not_json_is_malformed_and_what_does_not_fit_names_the_field() {
    for bad in ["{", "nonsense", "{} {}", "\u{0}"] {
        assert_eq!(refused(bad).0, 400, "{bad}");
    }
    for (bad, pointer) in [
        ("[]", "#"),
        ("3", "#"),
        (r#"{"peers":{}}"#, "#/peers"),
        (r#"{"peers":[[]]}"#, "#/peers/0"),
        (r#"{"data_plane":[]}"#, "#/data_plane"),
        (
            r#"{"data_plane":{"generation":-1}}"#,
            "#/data_plane/generation",
        ),
        (r#"{"overlay_mtu":67}"#, "#/overlay_mtu"),
        (r#"{"overlay_mtu":65536}"#, "#/overlay_mtu"),
        (r#"{"overlay_mtu":"1450"}"#, "#/overlay_mtu"),
        (r#"{"peers":[{}]}"#, "#/peers/0/subnet"),
        (
            r#"{"peers":[{"subnet":"10.42.2.0/24"},{"subnet":"10.42.2.1/24"}]}"#,
            "#/peers/1/subnet",
        ),
        (
            r#"{"peers":[{"subnet":"10.42.2.0/24","tx_bytes":"many"}]}"#,
            "#/peers/0/tx_bytes",
        ),
    ] {
        let (status, said) = refused(bad);
        assert_eq!(status, 422, "{bad}");
        assert!(said.contains(&format!("{pointer:?}")), "{bad}: {said}");
    }
}

#[test]
fn more_peers_than_a_data_plane_can_have_are_refused_and_as_many_as_it_can_have_fit_a_body() {
    let peers = |count: usize| {
        let peer = PeerTraffic {
            subnet: "255.255.255.255/32".to_owned(),
            tx_packets: i64::MAX.unsigned_abs(),
            tx_bytes: i64::MAX.unsigned_abs(),
            rx_packets: i64::MAX.unsigned_abs(),
            rx_bytes: i64::MAX.unsigned_abs(),
            kernel_tx_packets: i64::MAX.unsigned_abs(),
            kernel_tx_bytes: i64::MAX.unsigned_abs(),
            kernel_rx_packets: i64::MAX.unsigned_abs(),
            kernel_rx_bytes: i64::MAX.unsigned_abs(),
            dropped_packets: i64::MAX.unsigned_abs(),
            last_packet_age_ms: Some(i64::MAX.unsigned_abs()),
            suspect: false,
        };
        let one = serde_json::to_string(&peer).unwrap();
        format!(r#"{{"peers":[{}]}}"#, vec![one; count].join(","))
    };
    let most = peers(MOST_PEERS);
    assert!(most.len() < REPORT, "{} bytes", most.len());
    assert!(Report::from_json(most.as_bytes()).is_ok());
    let (status, said) = refused(&peers(MOST_PEERS + 1));
    assert_eq!(status, 422);
    assert!(said.contains("65537 entries"), "{said}");
}

#[test]
fn long_texts_are_cut_between_characters() {
    let long = "ü".repeat(5000);
    let findings = vec![json!({"code": "x", "observed": long, "since": 7}); 1000];
    let json = json!({"data_plane": {"reason": long, "findings": findings, "drops": {&long: 1}}});
    let report = Report::from_json(json.to_string().as_bytes()).unwrap();
    let data_plane = report.data_plane.unwrap();
    assert_eq!(data_plane.reason, "ü".repeat(LONGEST_TEXT));
    assert_eq!(data_plane.findings.len(), MOST_FINDINGS);
    let observed = &data_plane.findings[0].observed;
    assert_eq!(observed.chars().count(), LONGEST_TEXT);
    assert_eq!(data_plane.drops["ü".repeat(LONGEST_TEXT).as_str()], 1);
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(Value::from("10.42.2.0/24")),
    ];
    let name = prop_oneof![
        "[a-z]{0,4}",
        Just("data_plane".to_owned()),
        Just("peers".to_owned()),
        Just("subnet".to_owned()),
        Just("drops".to_owned()),
        Just("tx_packets".to_owned()),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused_with_a_field(value in json_value()) {
        if let Err(problem) = Report::from_json(value.to_string().as_bytes()) {
            prop_assert_eq!(problem.kind(), Kind::InvalidFields);
            prop_assert_eq!(problem.into_response().status().as_u16(), 422);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Err(problem) = Report::from_json(&bytes) {
            prop_assert!([400, 422].contains(&problem.kind().status()));
        }
    }
}
