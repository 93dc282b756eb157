//! Published ports, as engines write them.

use std::str::FromStr;

use mesh_client::mesh::PublishedPort;

/// A range of published ports: `[HOST_ADDRESS:]PORT[-PORT][:PORT[-PORT]][/tcp|/udp]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port(pub(crate) PublishedPort);

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ranges, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let parts: Vec<&str> = ranges.split(':').collect();
        let (host_address, host, container) = match parts[..] {
            [host] => ("", host, host),
            [address, host] if address.contains('.') => (address, host, host),
            [host, container] => ("", host, container),
            [address, host, container] => (address, host, container),
            _ => return Err(format!("{text:?} has more than an address and two ports")),
        };
        let ((host_port, count), (container_port, inside)) = (range(host)?, range(container)?);
        if count != inside {
            return Err(format!(
                "{text:?} has {count} ports on the host and {inside} in the container"
            ));
        }
        Ok(Self(PublishedPort {
            protocol: protocol.to_owned(),
            host_address: host_address.to_owned(),
            host_port,
            container_port,
            count,
        }))
    }
}

/// The first of a range of ports, and how many there are.
fn range(text: &str) -> Result<(u32, u32), String> {
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|&port| port > 0)
            .map(u32::from)
            .ok_or_else(|| format!("{text:?} is not a port between 1 and 65535"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    match last.checked_sub(first) {
        Some(more) => Ok((first, more + 1)),
        None => Err(format!("the range {text:?} ends before it begins")),
    }
}

/// A range as engines write it.
pub(crate) fn show(port: &PublishedPort) -> String {
    let range = |first: u32| match port.count {
        0 | 1 => first.to_string(),
        count => format!("{first}-{}", first + count - 1),
    };
    let address = match port.host_address.as_str() {
        "" => String::new(),
        address => format!("{address}:"),
    };
    format!(
        "{address}{}:{}/{}",
        range(port.host_port),
        range(port.container_port),
        port.protocol
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_write_is_read_and_written_again() {
        for (text, shown) in [
            ("8080", "8080:8080/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("53:53/udp", "53:53/udp"),
            ("192.0.2.11:8080", "192.0.2.11:8080:8080/tcp"),
            (
                "192.0.2.11:8000-8009:80-89/udp",
                "192.0.2.11:8000-8009:80-89/udp",
            ),
        ] {
            let port: Port = text.parse().unwrap();
            assert_eq!(show(&port.0), shown);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_by_name() {
        for (text, words) in [
            ("0", "\"0\""),
            ("65536:80", "\"65536\""),
            ("a:80", "\"a\""),
            ("20-10", "ends before"),
            ("8000-8002:80-81", "3 ports"),
            ("1:2:3:4", "more than"),
        ] {
            let error = text.parse::<Port>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
