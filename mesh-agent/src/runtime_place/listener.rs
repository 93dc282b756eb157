//! Who listens on a port of loopback. A connection over TCP does not say who is at its other end (SO_PEERCRED is for Unix
//! sockets), but the kernel's table of this network namespace's sockets does, of those that listen: the user that made each,
//! and its inode. It is asked before a connection is opened and once it stands: nobody else can have had the port between
//! while one socket listened, so that this is the one that was reached.
//!
//! Accepted connections are in that table, too, but not to be gone by: the kernel calls those root's that nobody has accepted
//! yet. What root itself leads elsewhere, by a firewall rule or by proxy, is root's word. In a user namespace in which root is
//! not mapped, nobody's socket is root's.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::unistd::geteuid;

/// Documentation/networking/proc_net_tcp.rst; of the process, because `/proc/net` is not there under `ProcSubset=pid`.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// TCP_LISTEN (net/tcp_states.h).
const LISTENS: &str = "0A";

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    /// Who made it.
    user: u32,
    /// Which it is.
    inode: u64,
}

/// Those that connections to this port of 127.0.0.1 come to: more than one only where they share the port, for which they
/// have to be the same user's.
///
/// # Errors
/// The tables cannot be read.
pub(super) fn on_loopback(port: u16) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for path in TABLES {
        match File::open(path) {
            Ok(table) => listening(BufReader::new(table), port, &mut found)?,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path != TABLES[0] => {}
            Err(error) => return Err(error),
        }
    }
    Ok(chosen(found))
}

/// Takes from a table the sockets that listen on this port, with the address of each. They stand before all others.
fn listening(
    table: impl BufRead,
    port: u16,
    found: &mut Vec<(IpAddr, Listener)>,
) -> io::Result<()> {
    for line in table.lines().skip(1) {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[_, local, _, state, _, _, _, user, _, inode, ..] = words.as_slice() else {
            return Err(unknown(&line));
        };
        if state != LISTENS {
            break;
        }
        let (address, at) = socket_address(local).ok_or_else(|| unknown(&line))?;
        if at == port {
            let (Ok(user), Ok(inode)) = (user.parse(), inode.parse()) else {
                return Err(unknown(&line));
            };
            found.push((address, Listener { user, inode }));
        }
    }
    Ok(())
}

fn unknown(line: &str) -> io::Error {
    io::Error::other(format!("a table of sockets in an unknown form: {line:?}"))
}

/// Words of 32 bits in hexadecimal, each as this machine has it in memory, and the port.
fn socket_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = address.get(at..at + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)
        }
        _ => return None,
    };
    Some((address, port))
}

/// Those that the kernel chooses from for 127.0.0.1: who is bound to an address goes before who is bound to none. Where there
/// is one of each family, the one of IPv6 is for IPv6 alone, since they could not both listen otherwise.
fn chosen(found: Vec<(IpAddr, Listener)>) -> Vec<Listener> {
    let loopback = Ipv4Addr::LOCALHOST;
    let places = [
        IpAddr::from(loopback),
        IpAddr::from(loopback.to_ipv6_mapped()),
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let at = |place: IpAddr| {
        let found = found.iter().filter(|(address, _)| *address == place);
        found.map(|(_, listener)| *listener).collect::<Vec<_>>()
    };
    let mut chosen = places.into_iter().map(at);
    chosen.find(|some| !some.is_empty()).unwrap_or_default()
}

/// Whether who listened before and after a connection was opened is one and the same, and may be taken for the runtime: root,
/// or the user that this agent is.
///
/// # Errors
/// Why not.
pub(super) fn judge(before: &[Listener], after: &[Listener]) -> Result<(), String> {
    if before != after || before.is_empty() {
        return Err("who listens there has just changed".to_owned());
    }
    let own = geteuid().as_raw();
    match before.iter().find(|it| ![0, own].contains(&it.user)) {
        None => Ok(()),
        Some(stranger) => Err(format!(
            "it is user {} who listens there, and not root",
            stranger.user
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, state: &str, user: u32, inode: u64) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {user:>5}        0 {inode} 1 \
             0000000000000000 100 0 0 10 0\n"
        )
    }

    fn read(lines: &[String]) -> Vec<Listener> {
        let mut found = Vec::new();
        let table = HEAD.to_owned() + &lines.concat();
        listening(table.as_bytes(), 50051, &mut found).unwrap();
        chosen(found)
    }

    /// As this machine has it in memory.
    fn words(bytes: &[u8]) -> String {
        let words = bytes.chunks_exact(4).map(|word| {
            let word = <[u8; 4]>::try_from(word).unwrap();
            format!("{:08X}", u32::from_ne_bytes(word))
        });
        words.collect::<String>() + ":C383"
    }

    #[test]
    fn those_that_listen_on_the_port_are_found_in_the_order_in_which_the_kernel_goes() {
        let at = |address: IpAddr, user| {
            let local = match address {
                IpAddr::V4(address) => words(&address.octets()),
                IpAddr::V6(address) => words(&address.octets()),
            };
            line(&local, LISTENS, user, u64::from(user))
        };
        let loopback = Ipv4Addr::LOCALHOST;
        let all = [
            at(Ipv6Addr::UNSPECIFIED.into(), 1),
            at(Ipv4Addr::UNSPECIFIED.into(), 2),
            at(loopback.to_ipv6_mapped().into(), 3),
            at(loopback.into(), 4),
            // Elsewhere.
            at(Ipv4Addr::new(127, 0, 0, 2).into(), 5),
            at(Ipv6Addr::LOCALHOST.into(), 6),
        ];
        for (count, user) in [(1, 1), (2, 2), (3, 3), (4, 4), (6, 4)] {
            let inode = u64::from(user);
            assert_eq!(read(&all[..count]), [Listener { user, inode }]);
        }
        assert_eq!(read(&all[4..]), []);
    }

    #[test]
    fn a_connection_is_no_socket_that_listens_whoever_it_belongs_to() {
        let local = words(&[127, 0, 0, 1]);
        let connection = line(&local, "01", 0, 9);
        assert_eq!(read(std::slice::from_ref(&connection)), []);
        let other_port = local.replace("C383", "C384");
        let listener = line(&other_port, LISTENS, 0, 8);
        assert_eq!(read(&[listener, connection]), []);
        let mut found = Vec::new();
        let table = HEAD.to_owned() + "something else\n";
        assert!(listening(table.as_bytes(), 50051, &mut found).is_err());
    }

    #[test]
    fn only_the_same_socket_of_root_or_of_this_user_is_taken() {
        let own = geteuid().as_raw();
        let socket = |user, inode| [Listener { user, inode }];
        assert_eq!(judge(&socket(0, 1), &socket(0, 1)), Ok(()));
        assert_eq!(judge(&socket(own, 1), &socket(own, 1)), Ok(()));
        let stranger = own + 4711;
        let error = judge(&socket(stranger, 1), &socket(stranger, 1)).unwrap_err();
        assert!(error.contains(&stranger.to_string()), "{error}");
        // Who had it meanwhile is unknown.
        assert!(judge(&socket(0, 1), &socket(0, 2)).is_err());
        assert!(judge(&[], &socket(0, 2)).is_err());
        assert!(judge(&[], &[]).is_err());
    }

    #[test]
    fn the_kernels_table_shows_what_this_process_listens_on() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let found = on_loopback(port).unwrap();
            let users: Vec<u32> = found.iter().map(|it| it.user).collect();
            assert_eq!(users, [geteuid().as_raw()], "{address}");
            drop(listener);
            assert_eq!(on_loopback(port).unwrap(), []);
        }
    }
}
