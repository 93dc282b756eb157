//! The `peers` map as bpftool prints it.

use std::net::Ipv4Addr;

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

fn octets(value: &Value) -> Option<Ipv4Addr> {
    let octets: Vec<u8> = value
        .as_array()?
        .iter()
        .map(|octet| octet.as_u64().and_then(|octet| u8::try_from(octet).ok()))
        .collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
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
    fn a_map_without_field_names_is_an_error() {
        assert!(subnets("key: 0a 2a 02 00  value: c0 00 02 03\nFound 1 element").is_err());
        assert!(subnets(r#"[{"key":["0x0a"],"value":["0x01"]}]"#).is_err());
    }
}
