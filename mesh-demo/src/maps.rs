//! Maps as bpftool prints them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde_json::Value;

/// The subnets of the entries in what `bpftool map dump` printed, read by the name of the
/// key's field: a map without BTF prints hexadecimal bytes and gives an error here.
pub(crate) fn subnets(output: &str) -> Result<Vec<Ipv4Addr>, String> {
    let entries: Vec<Value> =
        serde_json::from_str(output).map_err(|error| format!("not a list of fields: {error}"))?;
    entries
        .iter()
        .map(|entry| {
            entry
                .pointer("/key/subnet")
                .and_then(octets)
                .ok_or_else(|| format!("no key.subnet of four bytes in {entry}"))
        })
        .collect()
}

/// Address and MAC address of the entries of the `endpoints` map, likewise.
pub(crate) fn endpoints(output: &str) -> Result<BTreeMap<Ipv4Addr, String>, String> {
    let entries: Vec<Value> =
        serde_json::from_str(output).map_err(|error| format!("not a list of fields: {error}"))?;
    let read = |entry: &Value| {
        let address = octets(entry.pointer("/key/address")?)?;
        let mac: [u8; 6] = bytes(entry.pointer("/value/mac")?)?;
        let digits = mac.map(|byte| format!("{byte:02x}"));
        Some((address, digits.join(":")))
    };
    entries
        .iter()
        .map(|entry| read(entry).ok_or_else(|| format!("no address and MAC address in {entry}")))
        .collect()
}

fn octets(value: &Value) -> Option<Ipv4Addr> {
    bytes::<4>(value).map(Ipv4Addr::from)
}

fn bytes<const N: usize>(value: &Value) -> Option<[u8; N]> {
    let bytes: Vec<u8> = value
        .as_array()?
        .iter()
        .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_the_name_of_their_field() {
        let output = r#"[{
                "key": { "subnet": [10,42,2,0] },
                "value": { "address": [192,0,2,3], "vni": 100 }
            },{
                "key": { "subnet": [10,42,3,0] },
                "value": { "address": [192,0,2,4], "vni": 100 }
            }
        ]"#;
        let expected = [Ipv4Addr::new(10, 42, 2, 0), Ipv4Addr::new(10, 42, 3, 0)];
        assert_eq!(subnets(output).unwrap(), expected);
        assert_eq!(subnets("[]").unwrap(), Vec::<Ipv4Addr>::new());
    }

    #[test]
    fn endpoints_have_an_address_and_a_mac_address() {
        let output = r#"[{
                "key": { "address": [10,42,1,2] },
                "value": { "link": 7, "mac": [2,83,10,42,1,2], "flags": 1 }
        }]"#;
        let expected = [(Ipv4Addr::new(10, 42, 1, 2), "02:53:0a:2a:01:02".to_owned())];
        assert_eq!(endpoints(output).unwrap(), expected.into());
        assert!(endpoints(r#"[{"key":["0x0a"],"value":["0x01"]}]"#).is_err());
    }

    #[test]
    fn a_map_without_field_names_is_an_error() {
        assert!(subnets("key: 0a 2a 02 00  value: c0 00 02 03\nFound 1 element").is_err());
        assert!(subnets(r#"[{"key":["0x0a"],"value":["0x01"]}]"#).is_err());
    }
}
