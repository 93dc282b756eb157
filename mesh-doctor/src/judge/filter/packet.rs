//! A packet as the mesh sends it, and what a match of nftables makes of it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::Value;

/// IP protocol numbers, with nftables' names.
const TCP: (u64, &str) = (6, "tcp");
const UDP: (u64, &str) = (17, "udp");

/// The first packet of a connection, as far as it is known beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    source: Ipv4Addr,
    destination: Option<Ipv4Addr>,
    protocol: (u64, &'static str),
    port: Option<u16>,
    iif: Option<String>,
    oif: Option<String>,
}

impl Packet {
    /// A datagram to a port.
    pub(crate) fn udp(source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Self {
        Self {
            source,
            destination: Some(destination),
            protocol: UDP,
            port: Some(port),
            iif: None,
            oif: None,
        }
    }

    /// The beginning of a connection to any port.
    pub(crate) fn tcp(source: Ipv4Addr, destination: Option<Ipv4Addr>) -> Self {
        Self {
            source,
            destination,
            protocol: TCP,
            port: None,
            iif: None,
            oif: None,
        }
    }

    /// The same, with the interfaces by which it comes and leaves.
    pub(crate) fn over(self, iif: Option<&str>, oif: Option<&str>) -> Self {
        Self {
            iif: iif.map(str::to_owned),
            oif: oif.map(str::to_owned),
            ..self
        }
    }

    /// Whether a match holds; `None` if that is not known.
    pub(crate) fn holds(&self, of: &Value, before_routing: bool) -> Option<bool> {
        let (left, right) = (of.get("left")?, of.get("right")?);
        let holds = self.left_is(left, right, before_routing);
        match of.get("op").and_then(Value::as_str)? {
            "==" | "in" => holds,
            "!=" => holds.map(|holds| !holds),
            _ => None,
        }
    }

    fn left_is(&self, left: &Value, right: &Value, before_routing: bool) -> Option<bool> {
        if let Some(key) = left.pointer("/meta/key").and_then(Value::as_str) {
            return match key {
                "iifname" | "iif" => text_is(self.iif.as_deref().unwrap_or(""), right),
                // It is not known before routing, and empty then.
                "oifname" | "oif" if before_routing => None,
                "oifname" | "oif" => text_is(self.oif.as_deref().unwrap_or(""), right),
                "l4proto" => self.protocol_is(right),
                "nfproto" => text_is("ipv4", right),
                "protocol" => text_is("ip", right),
                _ => None,
            };
        }
        if let Some(key) = left.pointer("/ct/key").and_then(Value::as_str) {
            return match key {
                "state" => text_is("new", right),
                // Nobody has translated it.
                "status" => any(right, &|it| {
                    let it = it.as_str()?;
                    ["dnat", "snat", "assured", "seen-reply"]
                        .contains(&it)
                        .then_some(false)
                }),
                _ => None,
            };
        }
        let protocol = left.pointer("/payload/protocol").and_then(Value::as_str)?;
        let field = left.pointer("/payload/field").and_then(Value::as_str)?;
        match (protocol, field) {
            ("ip", "saddr") => address_is(self.source, right),
            ("ip", "daddr") => address_is(self.destination?, right),
            ("ip", "protocol") => self.protocol_is(right),
            ("ip6" | "icmp" | "icmpv6" | "arp" | "sctp" | "dccp" | "esp" | "ah", _) => Some(false),
            ("tcp" | "udp", _) if protocol != self.protocol.1 => Some(false),
            ("tcp" | "udp" | "th", "dport") => number_is(self.port?.into(), right),
            _ => None,
        }
    }

    fn protocol_is(&self, right: &Value) -> Option<bool> {
        let (number, name) = self.protocol;
        any(right, &|it| match it {
            Value::Number(_) => it.as_u64().map(|it| it == number),
            Value::String(it) => Some(it == name),
            _ => None,
        })
    }
}

/// Whether any of one or several values is met: `None` if none certainly is, and of some it is not known.
fn any(right: &Value, is: &dyn Fn(&Value) -> Option<bool>) -> Option<bool> {
    let elements = match right {
        Value::Array(elements) => elements,
        Value::Object(object) => match object.get("set") {
            Some(Value::Array(elements)) => elements,
            Some(_) => return None,
            None => return is(right),
        },
        // A named set.
        Value::String(name) if name.starts_with('@') => return None,
        _ => return is(right),
    };
    let mut unknown = false;
    for element in elements {
        // With a comment, a timeout or a counter of its own.
        let element = element.pointer("/elem/val").unwrap_or(element);
        match is(element) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => unknown = true,
        }
    }
    (!unknown).then_some(false)
}

fn text_is(text: &str, right: &Value) -> Option<bool> {
    any(right, &|it| {
        let it = it.as_str()?;
        Some(match it.strip_suffix('*') {
            Some(beginning) => text.starts_with(beginning),
            None => text == it,
        })
    })
}

fn number_is(number: u64, right: &Value) -> Option<bool> {
    any(right, &|it| match it.get("range") {
        Some(range) => {
            let bound = |at| range.get(at).and_then(Value::as_u64);
            Some((bound(0)?..=bound(1)?).contains(&number))
        }
        None => it.as_u64().map(|it| it == number),
    })
}

fn address_is(address: Ipv4Addr, right: &Value) -> Option<bool> {
    let parse = |it: &Value| it.as_str()?.parse::<Ipv4Addr>().ok();
    any(right, &|it| {
        if let Some(prefix) = it.get("prefix") {
            let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
            let net = Ipv4Net::new(parse(prefix.get("addr")?)?, length).ok()?;
            return Some(net.contains(&address));
        }
        if let Some(range) = it.get("range") {
            return Some((parse(range.get(0)?)?..=parse(range.get(1)?)?).contains(&address));
        }
        parse(it).map(|it| it == address)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(of: &Value) -> Option<bool> {
        let [a, b] = ["192.0.2.3", "192.0.2.2"].map(|it| it.parse().unwrap());
        let packet = Packet::udp(a, b, 4789).over(Some("eth0"), None);
        packet.holds(of, false)
    }

    fn of(left: &Value, right: &Value) -> Value {
        json!({"op": "==", "left": left, "right": right})
    }

    #[test]
    fn what_is_known_of_a_packet_is_compared_as_nftables_compares() {
        let port = json!({"payload": {"protocol": "udp", "field": "dport"}});
        let source = json!({"payload": {"protocol": "ip", "field": "saddr"}});
        let iif = json!({"meta": {"key": "iifname"}});
        for (left, right, expected) in [
            (&port, json!(4789), Some(true)),
            (
                &port,
                json!({"set": [53, {"range": [4000, 5000]}]}),
                Some(true),
            ),
            (&port, json!({"set": [53, 123]}), Some(false)),
            (&port, json!("@open"), None),
            (
                &source,
                json!({"prefix": {"addr": "192.0.2.0", "len": 24}}),
                Some(true),
            ),
            (
                &source,
                json!({"range": ["192.0.2.4", "192.0.2.9"]}),
                Some(false),
            ),
            (&iif, json!("eth*"), Some(true)),
            (&iif, json!({"set": ["lo", "eth3"]}), Some(false)),
            (
                &json!({"ct": {"key": "state"}}),
                json!(["established", "related"]),
                Some(false),
            ),
            (
                &json!({"ct": {"key": "status"}}),
                json!("dnat"),
                Some(false),
            ),
            (&json!({"meta": {"key": "mark"}}), json!(1), None),
            (
                &json!({"payload": {"protocol": "tcp", "field": "dport"}}),
                json!(22),
                Some(false),
            ),
        ] {
            assert_eq!(holds(&of(left, &right)), expected, "{left} {right}");
        }
        let not = json!({"op": "!=", "left": iif, "right": "docker0"});
        assert_eq!(holds(&not), Some(true));
    }
}
