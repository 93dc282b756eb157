//! Ports of the host by which a container is reached, as Docker has them. Pure.

use std::net::IpAddr;

use mesh_client::mesh::PublishedPort;
use serde::Deserialize;

/// A published port (`PortBinding`, libnetwork/types/types.go).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PortBinding {
    /// The number that IP has for the protocol.
    proto: u8,
    /// Of the container.
    port: u16,
    /// Empty for all of the host's.
    #[serde(default, rename = "HostIP")]
    host_ip: Option<String>,
    /// 0: any that is free.
    #[serde(default)]
    host_port: u16,
    /// The last of those of which any will do.
    #[serde(default)]
    host_port_end: u16,
}

/// Why a port is not published. Each names the port and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    #[error(
        "port {port} of the container: IP's protocol {proto} is not published, tcp and udp are"
    )]
    Protocol { port: u16, proto: u8 },
    #[error("published port {host_port}: Port, which is the container's, is 0")]
    NoPort { host_port: u16 },
    #[error(
        "port {port} of the container: no port of the host is named, and Docker does not show one that its driver chooses: name one, \
         such as --publish 8080:{port}"
    )]
    Any { port: u16 },
    #[error(
        "port {port} of the container: a range of ports of the host is named, {first}-{last}, and Docker does not show which of them \
         its driver chooses: name one"
    )]
    Range { port: u16, first: u16, last: u16 },
    #[error("published port {host_port}: {address:?} is no address")]
    NoAddress { host_port: u16, address: String },
    #[error(
        "published port {host_port}: {address} is of IPv6, and ports of IPv4 alone are published: name an address of IPv4, or none"
    )]
    Ipv6 { host_port: u16, address: String },
}

/// What the runtime is asked to publish.
pub(crate) fn published(bindings: &[PortBinding]) -> Result<Vec<PublishedPort>, PortError> {
    bindings.iter().map(one).collect()
}

fn one(binding: &PortBinding) -> Result<PublishedPort, PortError> {
    let PortBinding {
        proto,
        port,
        host_port,
        host_port_end,
        ..
    } = *binding;
    let protocol = match proto {
        6 => "tcp",
        17 => "udp",
        _ => return Err(PortError::Protocol { port, proto }),
    };
    // The runtime takes it for the host's.
    if port == 0 {
        return Err(PortError::NoPort { host_port });
    }
    if host_port == 0 {
        return Err(PortError::Any { port });
    }
    if host_port_end > host_port {
        return Err(PortError::Range {
            port,
            first: host_port,
            last: host_port_end,
        });
    }
    Ok(PublishedPort {
        protocol: protocol.to_owned(),
        host_address: host_address(binding)?,
        host_port: host_port.into(),
        container_port: port.into(),
        count: 1,
    })
}

fn host_address(binding: &PortBinding) -> Result<String, PortError> {
    let host_port = binding.host_port;
    let given = binding.host_ip.as_deref().unwrap_or_default();
    if given.is_empty() {
        return Ok(String::new());
    }
    let shown = || given.chars().take(48).collect();
    match given.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ok(String::new()),
        // What else cannot be is the runtime's to say.
        Ok(IpAddr::V4(address)) => Ok(address.to_string()),
        Ok(IpAddr::V6(_)) => Err(PortError::Ipv6 {
            host_port,
            address: shown(),
        }),
        Err(_) => Err(PortError::NoAddress {
            host_port,
            address: shown(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(binding: Value) -> Result<Vec<PublishedPort>, PortError> {
        published(&[serde_json::from_value(binding).unwrap()])
    }

    #[test]
    fn ports_are_published_as_docker_says_them() {
        let binding = json!({
            "Proto": 17, "IP": "", "Port": 53, "HostIP": "192.0.2.1", "HostPort": 5353, "HostPortEnd": 5353
        });
        let expected = PublishedPort {
            protocol: "udp".to_owned(),
            host_address: "192.0.2.1".to_owned(),
            host_port: 5353,
            container_port: 53,
            count: 1,
        };
        assert_eq!(of(binding), Ok(vec![expected]));
        for all in [json!(null), json!(""), json!("0.0.0.0")] {
            let binding = json!({ "Proto": 6, "Port": 80, "HostIP": all, "HostPort": 8080 });
            assert_eq!(of(binding).unwrap()[0].host_address, "");
        }
    }

    #[test]
    fn what_is_not_published_is_refused_with_the_port_and_what_helps() {
        let with = |change: Value| {
            let mut binding = json!({ "Proto": 6, "Port": 80, "HostIP": "", "HostPort": 8080 });
            for (name, value) in change.as_object().unwrap() {
                binding[name] = value.clone();
            }
            of(binding).unwrap_err().to_string()
        };
        for (change, words) in [
            (json!({ "Proto": 132 }), "protocol 132"),
            (json!({ "Port": 0 }), "8080"),
            (json!({ "HostPort": 0 }), "--publish 8080:80"),
            (json!({ "HostPortEnd": 8090 }), "8080-8090"),
            (json!({ "HostIP": "::" }), "IPv6"),
            (json!({ "HostIP": "here" }), "no address"),
        ] {
            let refused = with(change);
            assert!(
                refused.contains(words) && refused.contains("80"),
                "{refused}"
            );
        }
    }
}
