//! Doing things inside a namespace as an attacker would: as a user without privileges, and all
//! packets from one CPU, so that the kernel takes them in the order in which they were sent.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    process::Output,
};

use mesh_testbed::NetNs;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// User and group of those who may do nothing.
const NOBODY: libc::c_long = 65_534;

/// Runs `work` in a namespace with its packets in order. The receiving side of a virtual
/// link is served by the CPU that sent, first in, first out: what is sent later from the same
/// CPU cannot overtake.
pub(crate) fn pinned<T: Send>(netns: &NetNs, work: impl FnOnce() -> T + Send) -> T {
    netns
        .run(|| {
            let mut first = CpuSet::new();
            first.set(0).unwrap();
            sched_setaffinity(Pid::from_raw(0), &first).unwrap();
            work()
        })
        .unwrap()
}

/// The same as user 65534 without a capability. The kernel keeps a socket's owner from when it
/// was made: sockets have to be made by `work`.
pub(crate) fn as_nobody<T: Send>(netns: &NetNs, work: impl FnOnce() -> T + Send) -> T {
    pinned(netns, || {
        become_nobody().unwrap();
        work()
    })
}

/// Changes this thread alone; the C library's functions of these names change the whole process.
fn become_nobody() -> io::Result<()> {
    let done = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: an empty list of groups has no memory, and the others take numbers.
    unsafe {
        done(libc::syscall(
            libc::SYS_setgroups,
            0,
            std::ptr::null::<libc::gid_t>(),
        ))?;
        done(libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY))?;
        done(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY))?;
    }
    // The last capability went with user 0.
    // SAFETY: takes numbers.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    assert_eq!(raw, -1, "an unprivileged user has a packet socket");
    Ok(())
}

/// A UDP socket of the thread's namespace, whose packets may be fragmented.
pub(crate) fn udp_socket(source: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((source, 0)).unwrap();
    let how = libc::IP_PMTUDISC_DONT;
    // SAFETY: the option is an int, and its length is that of one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const how).cast(),
            size_of_val(&how) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    socket
}

/// Sends a datagram, or is refused by a rule of the sending host, which is as good as a drop.
pub(crate) fn send_or_refused(socket: &UdpSocket, payload: &[u8], target: SocketAddrV4) {
    match socket.send_to(payload, target) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => panic!("send to {target}: {error}"),
    }
}

/// Sends datagrams of `length` bytes in one go, which stay one packet until a card, or the
/// kernel before a socket or a wire, takes them apart. Refused is as good as dropped.
pub(crate) fn send_in_segments(
    socket: &UdpSocket,
    length: usize,
    payload: &[u8],
    target: SocketAddrV4,
) {
    let length = libc::c_int::try_from(length).unwrap();
    // SAFETY: the option is an int, and its length is that of one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const length).cast(),
            size_of_val(&length) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    send_or_refused(socket, payload, target);
}

/// Sends one datagram from a namespace.
pub(crate) fn datagram(from: &NetNs, target: SocketAddrV4, payload: &[u8]) {
    pinned(from, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.send_to(payload, target).unwrap();
    });
}

/// The hardware address of an interface.
pub(crate) fn mac(netns: &NetNs, interface: &str) -> [u8; 6] {
    let found = netns.run(|| {
        let mut addresses = nix::ifaddrs::getifaddrs().unwrap();
        addresses.find_map(|it| match it.interface_name == interface {
            true => it.address?.as_link_addr()?.addr(),
            false => None,
        })
    });
    let found = found.unwrap();
    found.unwrap_or_else(|| panic!("{interface} of {} has no MAC", netns.name()))
}

/// Runs a program inside; panics with its words if it fails.
pub(crate) fn run(netns: &NetNs, program: &str, words: &str) -> String {
    let output = try_run(netns, program, words);
    assert!(output.status.success(), "{program} {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program inside, which may fail.
pub(crate) fn try_run(netns: &NetNs, program: &str, words: &str) -> Output {
    netns
        .command(program)
        .args(words.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"))
}

/// Runs `ip` inside.
pub(crate) fn ip(netns: &NetNs, words: &str) -> String {
    run(netns, "ip", words)
}

/// Whether the packet filter of a host sees what its bridges carry: the kernel's own setting,
/// which is on, or that of a host whose administrator turned it off.
pub(crate) fn filter_bridges(netns: &NetNs, on: bool) {
    let key = "net/bridge/bridge-nf-call-iptables";
    // Without the module there is no setting, and it sees nothing.
    if !on && !std::path::Path::new("/proc/sys").join(key).exists() {
        return;
    }
    let value = if on { "1" } else { "0" };
    netns.sysctl(key, value).unwrap();
}
