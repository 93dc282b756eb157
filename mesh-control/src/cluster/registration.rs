//! A registration, read from JSON and checked field by field.
//!
//! Read by hand rather than derived, so that one answer names every field that is wrong, with its
//! value and the rule. Fields that are not known are accepted: newer agents may send more.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use mesh_rest::mtu::{MTU_RANGE, mtu};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::cluster::identity::Claim;
use crate::cluster::subnet_plan::{is_unicast, parse_cidr};

/// The longest hostname: the limit of a DNS name (RFC 1035 section 2.3.4) in its text form.
const LONGEST_HOSTNAME: usize = 253;
/// The longest node key.
const LONGEST_NODE_KEY: usize = 128;
/// More cores than any host has; a larger number is a mistake.
const MOST_CPU_CORES: u64 = 1 << 20;
/// A day, in milliseconds.
const LONGEST_INTERVAL_MS: u64 = 86_400_000;
/// 2^40 MiB, an exbibyte: a larger number is a mistake.
const MOST_RAM_MB: u64 = 1 << 40;

/// What a node says about itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
pub struct Registration {
    /// The stable identity that the agent keeps on disk: 1 to 128 printable ASCII characters.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = "^[!-~]+$",
        example = "3b0f5a0e"
    )]
    pub node_key: Option<String>,
    /// The host's name: 1 to 253 characters without control characters.
    #[schema(min_length = 1, max_length = 253, example = "alpha")]
    pub hostname: String,
    /// The host's underlay address.
    #[schema(value_type = String, format = "ipv4", example = "192.0.2.11")]
    pub host_ip: Ipv4Addr,
    /// Processor cores.
    #[schema(maximum = 1_048_576, example = 8)]
    pub cpu_cores: Option<u32>,
    /// Memory in MiB.
    #[schema(maximum = 1_099_511_627_776_u64, example = 16384)]
    pub ram_mb: Option<u64>,
    /// The subnet that the node holds from an earlier registration. It counts only where the node has
    /// no lease, because the database is new or older than that lease: the node is then leased this
    /// subnet, unless another node leases it, it is reserved, or this cluster does not have it.
    #[schema(
        value_type = Option<String>,
        pattern = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$",
        example = "10.42.7.0/24"
    )]
    pub subnet: Option<Ipv4Net>,
    /// The MTU of the node's overlay in bytes, as heartbeats tell it, too; absent if it has none yet.
    #[schema(minimum = 68, maximum = 65_535, example = 1450)]
    pub overlay_mtu: Option<u32>,
    /// The time between the node's heartbeats in milliseconds, where it does not follow what it is
    /// answered.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400_000, example = 10_000)]
    #[schema(rename = "heartbeat_interval_ms")]
    pub heartbeat_interval: Option<Duration>,
}

/// A field that is missing or wrong, as in the example of RFC 9457 section 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Which field: a JSON Pointer in URI fragment form (RFC 6901 section 6).
    pub pointer: String,
    /// The value and the rule.
    pub detail: String,
}

impl Registration {
    /// Reads the body of `POST /api/nodes/register`, for a cluster whose containers have addresses
    /// from `cluster`.
    ///
    /// # Errors
    ///
    /// Every field that is missing or wrong; never an empty list.
    pub fn from_json(body: &Value, cluster: Ipv4Net) -> Result<Self, Vec<FieldError>> {
        let Value::Object(object) = body else {
            let detail = format!("the body must be a JSON object, but is {}", describe(body));
            return Err(vec![FieldError {
                pointer: "#".to_owned(),
                detail,
            }]);
        };
        let mut fields = Fields {
            object,
            errors: Vec::new(),
        };
        let hostname = fields.required("hostname", hostname);
        let host_ip = fields.required("host_ip", |value| host_ip(value, cluster));
        let node_key = fields.optional("node_key", node_key);
        let cpu_cores = fields.optional("cpu_cores", |value| whole_number(value, MOST_CPU_CORES));
        let ram_mb = fields.optional("ram_mb", |value| whole_number(value, MOST_RAM_MB));
        let subnet = fields.optional("subnet", subnet);
        let overlay_mtu = fields.optional("overlay_mtu", overlay_mtu);
        let heartbeat_interval = fields.optional("heartbeat_interval_ms", interval);
        match (hostname, host_ip) {
            (Some(hostname), Some(host_ip)) if fields.errors.is_empty() => Ok(Self {
                node_key,
                hostname,
                host_ip,
                cpu_cores: cpu_cores.and_then(|cores| u32::try_from(cores).ok()),
                ram_mb,
                subnet,
                overlay_mtu,
                heartbeat_interval,
            }),
            _ => Err(fields.errors),
        }
    }

    /// What it says about who it is.
    pub fn claim(&self) -> Claim<'_> {
        Claim {
            node_key: self.node_key.as_deref(),
            hostname: &self.hostname,
            host_ip: self.host_ip,
        }
    }
}

struct Fields<'a> {
    object: &'a Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields<'_> {
    fn required<T>(&mut self, name: &str, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        match self.object.get(name) {
            Some(value) => self.read(name, value, read),
            None => {
                self.refuse(name, format!("the field {name} is missing"));
                None
            }
        }
    }

    /// Absent and `null` are the same: not told.
    fn optional<T>(&mut self, name: &str, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        match self.object.get(name) {
            None | Some(Value::Null) => None,
            Some(value) => self.read(name, value, read),
        }
    }

    fn read<T>(
        &mut self,
        name: &str,
        value: &Value,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        read(value)
            .map_err(|rule| self.refuse(name, format!("{name} {rule}, but is {}", describe(value))))
            .ok()
    }

    fn refuse(&mut self, name: &str, detail: String) {
        self.errors.push(FieldError {
            pointer: format!("#/{name}"),
            detail,
        });
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "must be a string".to_owned())
}

fn hostname(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    if !(1..=LONGEST_HOSTNAME).contains(&name.chars().count()) {
        return Err(format!("must have 1 to {LONGEST_HOSTNAME} characters"));
    }
    if name.trim().is_empty() || name.chars().any(is_unprintable) {
        return Err("must have printable characters only".to_owned());
    }
    Ok(name.to_owned())
}

/// Control characters, and those that reorder or hide text in an operator's terminal (Unicode
/// bidirectional controls and zero-width characters).
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn node_key(value: &Value) -> Result<String, String> {
    let key = text(value)?;
    let printable = key.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
    if !(1..=LONGEST_NODE_KEY).contains(&key.len()) || !printable {
        return Err(format!(
            "must have 1 to {LONGEST_NODE_KEY} printable ASCII characters without spaces"
        ));
    }
    Ok(key.to_owned())
}

fn host_ip(value: &Value, cluster: Ipv4Net) -> Result<Ipv4Addr, String> {
    let address = match text(value)?.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address,
        Ok(IpAddr::V6(_)) => {
            return Err("must be an IPv4 address, IPv6 is not supported".to_owned());
        }
        Err(_) => return Err("must be an IPv4 address such as 192.0.2.10".to_owned()),
    };
    if address.is_loopback() {
        return Err(
            "must be reachable from other hosts, which a loopback address is not".to_owned(),
        );
    }
    if !is_unicast(address) {
        return Err(
            "must be the address of one host (not unspecified, multicast, broadcast or \
                    reserved)"
                .to_owned(),
        );
    }
    if cluster.contains(&address) {
        return Err(format!(
            "must be the host's underlay address, outside the cluster CIDR {cluster}"
        ));
    }
    Ok(address)
}

/// Whether the cluster has such a subnet is not asked here: the node may come from another cluster.
fn subnet(value: &Value) -> Result<Ipv4Net, String> {
    parse_cidr(text(value)?).map_err(|_| {
        "must be an IPv4 network in CIDR form without host bits, such as 10.42.7.0/24".to_owned()
    })
}

/// A JSON integer. `4.0` is one, too: JSON does not tell the two apart (RFC 8259 section 6).
fn whole_number(value: &Value, most: u64) -> Result<u64, String> {
    whole(value, most)
        .filter(|number| *number <= most)
        .ok_or_else(|| format!("must be a whole number from 0 to {most}"))
}

fn whole(value: &Value, most: u64) -> Option<u64> {
    value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        // `most` is at most 2^40, far below 2^53, so that the conversion is exact.
        (float.fract() == 0.0 && (0.0..=most as f64).contains(&float)).then_some(float as u64)
    })
}

fn overlay_mtu(value: &Value) -> Result<u32, String> {
    let (least, most) = (MTU_RANGE.start(), MTU_RANGE.end());
    whole(value, (*most).into())
        .and_then(mtu)
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn interval(value: &Value) -> Result<Duration, String> {
    whole(value, LONGEST_INTERVAL_MS)
        .filter(|milliseconds| (1..=LONGEST_INTERVAL_MS).contains(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("must be a whole number from 1 to {LONGEST_INTERVAL_MS}"))
}

/// A value for an error message: short, whatever was sent, and never the content of an array or object.
fn describe(value: &Value) -> String {
    const SHOWN: usize = 64;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > SHOWN => {
            let start: String = text.chars().take(SHOWN).collect();
            format!(
                "a string of {} characters that begins {start:?}",
                text.chars().count()
            )
        }
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Registration, Vec<FieldError>> {
        Registration::from_json(body, "10.42.0.0/16".parse().unwrap())
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
                heartbeat_interval: Some(Duration::from_secs(5)),
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
}
