//! Ports of the host by which a container is reached.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use mesh_client::mesh::PublishedPort;
use serde::Deserialize;

use crate::short;

/// A port or a range of them, as netavark has it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PortMapping {
    container_port: u16,
    host_port: u16,
    /// Empty for all of the host's.
    #[serde(default)]
    host_ip: String,
    /// With commas between several; empty for TCP.
    #[serde(default)]
    protocol: String,
    /// How many follow each other; 0 means one.
    #[serde(default)]
    range: u16,
}

/// What the runtime is asked to publish; what it cannot do is refused by name.
pub(crate) fn published(mappings: &[PortMapping]) -> anyhow::Result<Vec<PublishedPort>> {
    let mut published = Vec::new();
    for mapping in mappings {
        let host_address = host_address(mapping)?;
        if mapping.container_port == 0 {
            bail!(
                "published port {}: the container's port is 0, and ports begin with 1",
                mapping.host_port
            );
        }
        let protocols = match mapping.protocol.as_str() {
            "" => "tcp",
            other => other,
        };
        for protocol in protocols.split(',').map(str::trim) {
            if !["tcp", "udp"].contains(&protocol) {
                bail!(
                    "published port {}: protocol {:?} is not published, tcp and udp are",
                    mapping.host_port,
                    short(protocol)
                );
            }
            published.push(PublishedPort {
                protocol: protocol.to_owned(),
                host_address: host_address.clone(),
                host_port: mapping.host_port.into(),
                container_port: mapping.container_port.into(),
                count: mapping.range.max(1).into(),
            });
        }
    }
    Ok(published)
}

fn host_address(mapping: &PortMapping) -> anyhow::Result<String> {
    let PortMapping {
        host_ip, host_port, ..
    } = mapping;
    if host_ip.is_empty() {
        return Ok(String::new());
    }
    let address: IpAddr = host_ip.parse().with_context(|| {
        format!(
            "published port {host_port}: {:?} is no address",
            short(host_ip)
        )
    })?;
    match address {
        IpAddr::V4(address) if address.is_unspecified() => Ok(String::new()),
        // What else cannot be is the runtime's to say.
        IpAddr::V4(address) => Ok(address.to_string()),
        IpAddr::V6(address) => bail!(
            "published port {host_port}: {address} is of IPv6, and ports of IPv4 alone are published: name an address of IPv4, or \
             none"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(mapping: Value) -> anyhow::Result<Vec<PublishedPort>> {
        published(&[serde_json::from_value(mapping).unwrap()])
    }

    #[test]
    fn a_mapping_is_of_each_of_its_protocols_and_at_least_one_port() {
        let mapping = json!({ "container_port": 80, "host_port": 8080, "host_ip": "192.0.2.1", "protocol": "tcp,udp", "range": 3 });
        let both = of(mapping).unwrap();
        assert_eq!(
            both.iter()
                .map(|it| it.protocol.as_str())
                .collect::<Vec<_>>(),
            ["tcp", "udp"]
        );
        assert_eq!(
            (both[0].host_address.as_str(), both[0].count),
            ("192.0.2.1", 3)
        );
        for host_ip in ["", "0.0.0.0"] {
            let mapping = json!({ "container_port": 80, "host_port": 8080, "host_ip": host_ip, "protocol": "", "range": 0 });
            let one = of(mapping).unwrap();
            assert_eq!((one[0].protocol.as_str(), one[0].count), ("tcp", 1));
            assert_eq!(one[0].host_address, "");
        }
    }

    #[test]
    fn what_is_not_published_is_refused_by_name() {
        for (field, value) in [
            ("protocol", "sctp"),
            ("protocol", "tcp,sctp"),
            ("host_ip", "::"),
            ("host_ip", "::1"),
            ("host_ip", "localhost"),
        ] {
            let mut mapping = json!({ "container_port": 80, "host_port": 8080 });
            mapping[field] = value.into();
            let refused = of(mapping).unwrap_err().to_string();
            let word = value.rsplit(',').next().unwrap();
            assert!(
                refused.contains(word) && refused.contains("8080"),
                "{refused}"
            );
        }
        let nowhere = of(json!({ "container_port": 0, "host_port": 8080 }));
        let refused = nowhere.unwrap_err().to_string();
        assert!(
            refused.contains("8080") && refused.contains("port is 0"),
            "{refused}"
        );
    }
}
