//! The ports of this host that its own processes listen on.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use mesh_ipam::{Protocol, Published};

/// State of a TCP socket that listens (`TCP_LISTEN`), and of a UDP socket that takes from anybody (`TCP_CLOSE`), as
/// proc_net(5) has them.
const TCP_LISTEN: &str = "0A";
const UDP_OPEN: &str = "07";

/// A published port that a process of this host has. What is sent there would go to the container.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "published ports {range}: a process of this host listens on {listener}/{} (ss -lntup names it), and would be \
     reached no more: publish another port, or stop it", range.protocol
)]
pub(crate) struct PortTaken {
    range: Published,
    listener: SocketAddr,
}

/// What listens in the network namespace of this thread. Blocks, for as long as the kernel lists sockets.
pub(crate) fn listeners() -> io::Result<BTreeSet<(Protocol, SocketAddr)>> {
    let mut found = BTreeSet::new();
    for (file, protocol) in [
        ("tcp", Protocol::Tcp),
        ("tcp6", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("udp6", Protocol::Udp),
    ] {
        // A kernel without IPv6 has no such file.
        let text = match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let lines = text.lines().skip(1);
        found.extend(lines.filter_map(|line| Some((protocol, listener(line, protocol)?))));
    }
    Ok(found)
}

/// The address of a socket that takes what anybody sends, by its line.
fn listener(line: &str, protocol: Protocol) -> Option<SocketAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
    let listens = match protocol {
        Protocol::Tcp => TCP_LISTEN,
        Protocol::Udp => UDP_OPEN,
    };
    let (address, port) = local.split_once(':').filter(|_| state == listens)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(parse(address)?, port))
}

/// An address as the kernel prints it: words of four bytes, each in the byte order of the host.
fn parse(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Whether a process has one of the ports that are to be published. Pure.
pub(crate) fn check(
    published: &[Published],
    listeners: &BTreeSet<(Protocol, SocketAddr)>,
) -> Result<(), PortTaken> {
    let taken = |range: &Published, listener: &SocketAddr| {
        let last = u32::from(range.host_port) + u32::from(range.count);
        let has = listener.port() >= range.host_port && u32::from(listener.port()) < last;
        // An address of IPv6 alone is not published.
        let meant = match listener.ip() {
            IpAddr::V4(address) => address.is_unspecified() || range.is_of(address),
            IpAddr::V6(address) => address.is_unspecified(),
        };
        has && meant
    };
    for range in published {
        let mut of_protocol = listeners.iter().filter(|(it, _)| *it == range.protocol);
        if let Some((_, listener)) = of_protocol.find(|(_, listener)| taken(range, listener)) {
            return Err(PortTaken {
                range: range.clone(),
                listener: *listener,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(host_address: Option<&str>, host_port: u16, count: u16) -> Published {
        Published {
            protocol: Protocol::Tcp,
            host_address: host_address.map(|text| text.parse().unwrap()),
            host_port,
            container_port: 80,
            count,
        }
    }

    #[test]
    fn a_socket_that_listens_is_found_and_one_that_is_connected_is_not() {
        // As a machine whose first byte of a number is the lowest prints 192.0.2.11.
        let number = u32::from_ne_bytes([192, 0, 2, 11]);
        let line = |state: &str| {
            format!("   0: {number:08X}:1F90 00000000:0000 {state} 00000000:00000000 00:00000000")
        };
        let found = listener(&line("0A"), Protocol::Tcp);
        assert_eq!(found, Some("192.0.2.11:8080".parse().unwrap()));
        assert_eq!(listener(&line("01"), Protocol::Tcp), None);
        let any =
            "   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A";
        assert_eq!(
            listener(any, Protocol::Tcp),
            Some("[::]:22".parse().unwrap())
        );
        assert_eq!(listener("no socket", Protocol::Tcp), None);
    }

    #[test]
    fn what_listens_on_a_published_port_is_in_its_way() {
        let on = |text: &str| [(Protocol::Tcp, text.parse().unwrap())].into();
        for (listener, published, free) in [
            ("0.0.0.0:8080", range(None, 8080, 1), false),
            ("[::]:8080", range(None, 8000, 100), false),
            ("192.0.2.11:8080", range(None, 8080, 1), false),
            ("192.0.2.11:8080", range(Some("192.0.2.11"), 8080, 1), false),
            ("192.0.2.11:8080", range(Some("192.0.2.12"), 8080, 1), true),
            ("127.0.0.1:8080", range(None, 8080, 1), false),
            ("127.0.0.1:8080", range(Some("192.0.2.11"), 8080, 1), true),
            ("127.0.0.1:8080", range(Some("127.0.0.1"), 8080, 1), false),
            ("192.0.2.11:8080", range(Some("127.0.0.1"), 8080, 1), true),
            ("0.0.0.0:8080", range(Some("127.0.0.1"), 8080, 1), false),
            // As the stub of a resolver: all of loopback's others stay the host's.
            ("127.0.0.53:8080", range(None, 8080, 1), true),
            ("0.0.0.0:8080", range(None, 8081, 9), true),
            ("0.0.0.0:8080", range(None, 8000, 80), true),
        ] {
            let outcome = check(std::slice::from_ref(&published), &on(listener));
            assert_eq!(outcome.is_ok(), free, "{listener} {published}");
        }
        let udp = [(Protocol::Udp, "0.0.0.0:8080".parse().unwrap())].into();
        assert_eq!(check(&[range(None, 8080, 1)], &udp), Ok(()));
    }
}
