//! The part of the lock that nobody without `CAP_NET_ADMIN` can take: a group of packet logs.
//!
//! A group of nfnetlink_log belongs to one network namespace and to one netlink socket. The kernel gives it to the
//! first that asks, refuses it to everybody else, takes no request without `CAP_NET_ADMIN` over the namespace, and has
//! it back when the socket closes, however its process ends (nfnetlink_log.c, of one kind from before Linux 5.10 to
//! today's). It depends on no file, so that mount namespaces do not matter, and does nothing: it would get what a rule
//! sends to `log group 20821`, and nobody has such a rule.
//!
//! What else is one per namespace was looked at: names of Unix sockets, port ids of netlink and locks on the
//! namespace's own file are anybody's; low ports are where `ip_unprivileged_port_start` says so; an nftables table with
//! `flags owner` needs Linux 5.12, and stands in listings, whose restoration then fails; a TUN device needs
//! `/dev/net/tun` and is seen by whoever manages interfaces.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink::{
    message::{NLM_F_ACK, NLM_F_REQUEST, attribute_of, message},
    reader::Reader,
};

/// "QU".
const GROUP: u16 = 0x5155;

// linux/netfilter/nfnetlink.h and nfnetlink_log.h
const NFNL_SUBSYS_ULOG: u16 = 4;
const NFULNL_MSG_CONFIG: u16 = 1;
const NFULA_CFG_CMD: u16 = 1;
const NFULNL_CFG_CMD_BIND: u8 = 1;

/// Holds the group of the thread's network namespace until it is dropped.
#[derive(Debug)]
pub(super) struct LogGroup {
    _socket: Reader,
}

/// What asking for the group came to.
#[derive(Debug)]
pub(super) enum Asked {
    Taken(LogGroup),
    /// Another socket has it.
    Held,
    /// The kernel has no such groups, or does not say.
    Unavailable(io::Error),
}

/// Asks for the group. The process must have `CAP_NET_ADMIN`, as a runtime does: who has it not is refused like one who
/// comes second.
pub(super) fn ask() -> Asked {
    let taken = Reader::of(NETLINK_NETFILTER).and_then(|socket| {
        let [high, low] = GROUP.to_be_bytes();
        let request = message(
            NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG,
            NLM_F_REQUEST | NLM_F_ACK,
            &[libc::AF_UNSPEC as u8, 0, high, low],
            &attribute_of(NFULA_CFG_CMD, &[NFULNL_CFG_CMD_BIND]),
        );
        socket.ask(&request, |_| Some(()))?;
        Ok(LogGroup { _socket: socket })
    });
    match taken {
        Ok(group) => Asked::Taken(group),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EBUSY) => Asked::Held,
            _ => Asked::Unavailable(error),
        },
    }
}
