//! Who holds a UDP port.

use std::{fs, path::Path};

/// Describes the processes of this network namespace that hold a UDP port, as far as this
/// process may see them. `None` if no socket in sight has it, as is the case of a socket
/// that the kernel itself holds.
pub(crate) fn describe_holder(port: u16) -> Option<String> {
    let inodes: Vec<u64> = ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| inodes_with_port(&table, port))
        .collect();
    let holders: Vec<String> = processes()
        .filter(|(_, directory)| holds_any(directory, &inodes))
        .map(|(pid, directory)| {
            let name = fs::read_to_string(directory.join("comm")).unwrap_or_default();
            format!("{} (pid {pid})", name.trim())
        })
        .collect();
    match (inodes.is_empty(), holders.is_empty()) {
        (true, _) => None,
        (false, true) => Some("a process this one may not see".to_owned()),
        (false, false) => Some(holders.join(", ")),
    }
}

fn processes() -> impl Iterator<Item = (u32, std::path::PathBuf)> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, entry.path()))
        })
}

fn holds_any(process: &Path, inodes: &[u64]) -> bool {
    fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            let name = target.to_str()?;
            name.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse::<u64>()
                .ok()
        })
        .any(|inode| inodes.contains(&inode))
}

/// Inodes of the sockets with a local port, from a table in the format of `/proc/net/udp`.
fn inodes_with_port(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
            let inode = fields.nth(7)?.parse().ok()?;
            (u16::from_str_radix(local_port, 16).ok()? == port && inode != 0).then_some(inode)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found_by_its_port() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let holder = describe_holder(port).unwrap();
        let pid = format!("(pid {})", std::process::id());
        assert!(holder.contains(&pid), "{holder}");
    }

    #[test]
    fn the_inode_is_the_tenth_field() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n\
            2: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n";
        assert_eq!(inodes_with_port(table, 4789), [4711]);
        assert!(inodes_with_port(table, 80).is_empty());
    }
}
