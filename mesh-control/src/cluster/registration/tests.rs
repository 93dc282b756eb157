//! What is taken in, and what is refused with which words.

use proptest::prelude::*;
use serde_json::json;

use super::{FieldError, Ipv4Addr, Registration, Value};

fn read(body: &Value) -> Result<Registration, Vec<FieldError>> {
    super::read(body, "10.42.0.0/16".parse().unwrap())
}

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"hostname": "a", "host_ip": "192.0.2.1"});
    body[field] = value;
    body
}

#[test]
fn a_registration_with_every_field_is_read() {
    let body = json!({"hostname": "a", "host_ip": "192.0.2.1", "cpu_cores": 4, "ram_mb": 8192.0,
        "node_key": "k-1", "subnet": "10.42.7.0/24", "overlay_mtu": 1450.0,
        "heartbeat_interval_ms": 5000, "favourite_colour": ["blue"]});
    assert_eq!(
        read(&body).unwrap(),
        Registration {
            node_key: Some("k-1".to_owned()),
            hostname: "a".to_owned(),
            host_ip: Ipv4Addr::new(192, 0, 2, 1),
            cpu_cores: Some(4),
            ram_mb: Some(8192),
            subnet: Some("10.42.7.0/24".parse().unwrap()),
            overlay_mtu: Some(1450),
            heartbeat_interval_ms: Some(5000),
        }
    );
}

#[test]
fn only_hostname_and_host_ip_are_required() {
    let read = read(&with("cpu_cores", Value::Null)).unwrap();
    assert_eq!(
        (read.cpu_cores, read.ram_mb, read.node_key, read.subnet),
        (None, None, None, None)
    );
}

#[test]
fn each_wrong_field_is_named_with_its_value_and_the_rule() {
    for (field, value, words) in [
        (
            "hostname",
            json!(5),
            "hostname must be a string, but is the number 5",
        ),
        ("hostname", json!(""), "1 to 253"),
        ("hostname", json!("x".repeat(254)), "254 characters"),
        ("hostname", json!("  "), "printable"),
        ("hostname", json!("a\nb"), "printable"),
        ("hostname", json!("a\u{202e}b"), "printable"),
        ("hostname", json!(null), "but is null"),
        (
            "host_ip",
            json!("here"),
            "host_ip must be an IPv4 address such as 192.0.2.10, but is \"here\"",
        ),
        ("host_ip", json!("192.0.2.1/24"), "IPv4 address"),
        ("host_ip", json!("192.0.2.01"), "IPv4 address"),
        ("host_ip", json!("192.0.2.256"), "IPv4 address"),
        ("host_ip", json!(3_221_225_985_u32), "must be a string"),
        ("host_ip", json!("fe80::1"), "IPv6 is not supported"),
        (
            "host_ip",
            json!("::ffff:192.0.2.1"),
            "IPv6 is not supported",
        ),
        ("host_ip", json!("0.0.0.0"), "address of one host"),
        ("host_ip", json!("224.0.0.1"), "address of one host"),
        ("host_ip", json!("255.255.255.255"), "address of one host"),
        ("host_ip", json!("240.0.0.1"), "address of one host"),
        ("host_ip", json!("127.0.0.1"), "loopback"),
        (
            "host_ip",
            json!("10.42.7.1"),
            "outside the cluster CIDR 10.42.0.0/16",
        ),
        ("cpu_cores", json!(-1), "whole number"),
        ("cpu_cores", json!(1.5), "whole number"),
        ("cpu_cores", json!("4"), "whole number"),
        ("cpu_cores", json!(1_u64 << 33), "whole number"),
        ("ram_mb", json!([1]), "but is an array"),
        ("ram_mb", json!(u64::MAX), "whole number"),
        ("node_key", json!(""), "1 to 128"),
        ("node_key", json!("k".repeat(129)), "1 to 128"),
        ("node_key", json!("k k"), "printable ASCII"),
        ("node_key", json!("clé"), "printable ASCII"),
        ("overlay_mtu", json!(67), "whole number from 68 to 65535"),
        (
            "overlay_mtu",
            json!(65_536),
            "whole number from 68 to 65535",
        ),
        (
            "overlay_mtu",
            json!("1450"),
            "whole number from 68 to 65535",
        ),
        ("heartbeat_interval_ms", json!(0), "whole number from 1"),
        ("heartbeat_interval_ms", json!("5s"), "whole number from 1"),
        ("heartbeat_interval_ms", json!(86_400_001), "to 86400000"),
        ("subnet", json!(7), "subnet must be a string"),
        (
            "subnet",
            json!("10.42.7.0"),
            "subnet must be an IPv4 network in CIDR form",
        ),
        ("subnet", json!("10.42.7.0/33"), "CIDR form"),
        ("subnet", json!("10.42.7.1/24"), "without host bits"),
        ("subnet", json!("fd00::/64"), "IPv4 network"),
    ] {
        let errors = read(&with(field, value.clone())).unwrap_err();
        assert_eq!(errors.len(), 1, "{field} = {value}: {errors:?}");
        assert_eq!(errors[0].pointer, format!("#/{field}"));
        assert!(
            errors[0].detail.contains(words),
            "{field} = {value}: {}",
            errors[0].detail
        );
    }
}

#[test]
fn every_wrong_field_is_named_in_one_answer() {
    let errors = read(&json!({"host_ip": 1, "cpu_cores": {}})).unwrap_err();
    let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["#/hostname", "#/host_ip", "#/cpu_cores"]);
    for body in [json!(null), json!([]), json!("x"), json!(1)] {
        assert_eq!(read(&body).unwrap_err()[0].pointer, "#");
    }
}

proptest! {
    #[test]
    fn an_admitted_host_ip_is_one_host_outside_the_overlay(address in any::<u32>()) {
        let address = Ipv4Addr::from(address);
        if let Ok(read) = read(&with("host_ip", json!(address.to_string()))) {
            prop_assert_eq!(read.host_ip, address);
            prop_assert!(!address.is_multicast() && !address.is_broadcast() && !address.is_unspecified());
            prop_assert!(!address.is_loopback() && address.octets()[..2] != [10, 42]);
        }
    }
}
