//! Questions to the kernel over netlink, each waited for not for ever.

use std::{io, time::Duration};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

/// The kernel answers at once, unless somebody holds its network configuration lock.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of a dump the kernel packs up to 32 KiB at once (`netlink_dump`, net/netlink/af_netlink.c).
const ROOM: usize = 64 << 10;
/// Length of `nlmsghdr` (linux/netlink.h).
const HEADER_LEN: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A connection to one part of the kernel, in the network namespace of the thread that opened it.
pub(crate) struct Kernel {
    socket: Socket,
    next: u32,
}

impl Kernel {
    /// Routes, links, addresses, neighbours, tc.
    pub(crate) fn of_routes() -> io::Result<Self> {
        let kernel = Self::of(NETLINK_ROUTE)?;
        // Dumps are filtered by the kernel from Linux 4.20 on.
        kernel.socket.set_netlink_get_strict_chk(true)?;
        Ok(kernel)
    }

    /// Any part (`NETLINK_*`).
    pub(crate) fn of(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
        setsockopt(&socket, ReceiveTimeout, &patience)?;
        Ok(Self { socket, next: 1 })
    }

    /// All there is of something. A message that cannot be read is about something newer than this program, and left out.
    pub(crate) fn dump(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut found = Vec::new();
        self.ask(serialized(question, NLM_F_REQUEST | NLM_F_DUMP), |bytes| {
            found.extend(deserialized(bytes));
        })?;
        Ok(found)
    }

    /// One answer, or the kernel's refusal.
    pub(crate) fn get(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut found = None;
        self.ask(serialized(question, NLM_F_REQUEST), |bytes| {
            found = deserialized(bytes);
        })?;
        Ok(found)
    }

    /// Sends a message and gives `take` each of its answers, whole with their headers.
    pub(crate) fn ask(
        &mut self,
        mut message: Vec<u8>,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        // `nlmsg_seq`; whoever made the message made its header.
        if let Some(sequence) = message.get_mut(8..12) {
            sequence.copy_from_slice(&number.to_ne_bytes());
        }
        let dump = message.get(6..8) == Some(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        self.socket.send(&message, 0)?;
        let mut buffer = Vec::with_capacity(ROOM);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while let Ok(header) = NetlinkBuffer::new_checked(rest) {
                let (length, kind, of) = (
                    header.length() as usize,
                    header.message_type(),
                    header.sequence_number(),
                );
                let Some(whole) = rest.get(..length).filter(|it| it.len() >= HEADER_LEN) else {
                    break;
                };
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                // Late answers to a question that was given up.
                if of != number {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return refusal(whole),
                    _ => take(whole),
                }
                if !dump {
                    return Ok(());
                }
            }
        }
    }
}

/// `nlmsgerr`: 0 is an acknowledgement.
fn refusal(message: &[u8]) -> io::Result<()> {
    let code = message.get(HEADER_LEN..HEADER_LEN + 4);
    let code = code
        .and_then(|it| it.try_into().ok())
        .map_or(0, i32::from_ne_bytes);
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

fn serialized(question: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut message = NetlinkMessage::from(question);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn deserialized(bytes: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::deserialize(bytes).ok()?.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    }
}

/// `nlmsghdr` before a body, with no number yet, for the parts that no crate speaks with.
pub(crate) fn dump_message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_LEN + body.len());
    // None is longer than a few dozen bytes.
    message.extend(((HEADER_LEN + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// What stands behind the header.
pub(crate) fn body(message: &[u8]) -> &[u8] {
    message.get(HEADER_LEN..).unwrap_or_default()
}

/// Each attribute's type, without flags, and its value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE_MASK: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(it, value)| (it == kind).then_some(value))
}

/// A number in the host's byte order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    field.try_into().ok().map(u16::from_ne_bytes)
}

/// A number in the host's byte order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    field.try_into().ok().map(u32::from_ne_bytes)
}

/// A text without its final zero.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{AddressFamily, route::RouteMessage};

    use super::*;

    #[test]
    fn the_kernel_answers_with_all_there_is_and_refuses_what_it_does_not_know() {
        let mut kernel = Kernel::of_routes().unwrap();
        let links = kernel.dump(RouteNetlinkMessage::GetLink(Default::default()));
        assert!(!links.unwrap().is_empty(), "there is loopback at least");
        let mut nowhere = RouteMessage::default();
        nowhere.header.address_family = AddressFamily::Other(200);
        kernel
            .get(RouteNetlinkMessage::GetRoute(nowhere))
            .unwrap_err();
    }

    #[test]
    fn attributes_that_are_cut_off_are_none() {
        let bytes = [8, 0, 1, 0, 7, 0, 0, 0, 9, 0, 2, 0];
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(attribute(&bytes, 1).and_then(|it| u32_at(it, 0)), Some(7));
        assert_eq!(attribute(&bytes, 2), None);
    }
}
