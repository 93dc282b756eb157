//! A registration, read from JSON and checked field by field.
//!
//! Read by hand rather than derived, so that one answer names every field that is wrong, with its
//! value and the rule. Fields that are not known are accepted: newer agents may send more.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_rest::mtu::{MTU_RANGE, mtu};
use mesh_rest::problem::FieldError;
use mesh_rest::registration::{
    HEARTBEAT_INTERVAL_MS, LONGEST_HOSTNAME, LONGEST_NODE_KEY, MOST_CPU_CORES, MOST_RAM_MB,
    Registration,
};
use serde_json::{Map, Value};

use crate::cluster::subnet_plan::{is_unicast, parse_cidr};

/// Reads the body of `POST /api/nodes/register`, for a cluster whose containers have addresses
/// from `cluster`.
///
/// # Errors
///
/// Every field that is missing or wrong; never an empty list.
pub fn read(body: &Value, cluster: Ipv4Net) -> Result<Registration, Vec<FieldError>> {
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
    let heartbeat_interval_ms = fields.optional("heartbeat_interval_ms", interval);
    match (hostname, host_ip) {
        (Some(hostname), Some(host_ip)) if fields.errors.is_empty() => Ok(Registration {
            node_key,
            hostname,
            host_ip,
            cpu_cores: cpu_cores.and_then(|cores| u32::try_from(cores).ok()),
            ram_mb,
            subnet,
            overlay_mtu,
            heartbeat_interval_ms,
        }),
        _ => Err(fields.errors),
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

fn interval(value: &Value) -> Result<u64, String> {
    let (least, most) = (HEARTBEAT_INTERVAL_MS.start(), HEARTBEAT_INTERVAL_MS.end());
    whole(value, *most)
        .filter(|milliseconds| HEARTBEAT_INTERVAL_MS.contains(milliseconds))
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
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
mod tests;
