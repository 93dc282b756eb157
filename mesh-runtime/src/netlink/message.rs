//! Netlink messages as bytes, for those parts of the kernel that no crate speaks with, and for many messages at once.
//!
//! linux/netlink.h; headers and attributes are in the byte order of the host.

use std::io;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// Set where the state changed while it was being read.
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLA_F_NESTED: u16 = 0x8000;
/// The flags in an attribute's type (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
/// Length of `nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
/// Where `nlmsghdr` has the number of a request, which its answer repeats.
const SEQUENCE: std::ops::Range<usize> = 8..12;

/// `nlmsghdr`, the header of the part that is spoken with, and attributes.
pub(crate) fn message(kind: u16, flags: u16, header: &[u8], attributes: &[u8]) -> Vec<u8> {
    let length = HEADER_LEN + header.len() + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(header);
    message.extend(attributes);
    message
}

/// An attribute, filled up to four bytes. None here comes near the 64 KiB that it can have.
pub(crate) fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(value.len() + 8);
    attribute.extend(((4 + value.len()) as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// A text as an attribute.
pub(crate) fn text_attribute(kind: u16, value: &str) -> Vec<u8> {
    attribute_of(kind, &[value.as_bytes(), &[0]].concat())
}

/// The first message of a datagram, whole with its header, and what follows it.
pub(crate) fn split(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    let message = datagram.get(..length).filter(|it| it.len() >= HEADER_LEN)?;
    let rest = datagram.get(length.next_multiple_of(4)..);
    Some((message, rest.unwrap_or_default()))
}

/// The same of messages that are still to be sent.
pub(crate) fn split_mut(messages: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
    let length = split(messages)?.0.len();
    let whole = length.next_multiple_of(4).min(messages.len());
    let (message, rest) = messages.split_at_mut(whole);
    Some((message.get_mut(..length)?, rest))
}

/// What a message is about (`RTM_NEWLINK` and the like).
pub(crate) fn kind(message: &[u8]) -> Option<u16> {
    u16_at(message, 4)
}

/// Whether the state that a dump shows changed while it was read.
pub(crate) fn is_interrupted(message: &[u8]) -> bool {
    u16_at(message, 6).is_some_and(|flags| flags & NLM_F_DUMP_INTR != 0)
}

/// Whether a request is for all there is.
pub(crate) fn is_dump(request: &[u8]) -> bool {
    u16_at(request, 6).is_some_and(|flags| flags & NLM_F_DUMP == NLM_F_DUMP)
}

/// The number of a message.
pub(crate) fn sequence(message: &[u8]) -> Option<u32> {
    u32_at(message, SEQUENCE.start)
}

/// Numbers a message.
pub(crate) fn set_sequence(message: &mut [u8], number: u32) {
    if let Some(field) = message.get_mut(SEQUENCE) {
        field.copy_from_slice(&number.to_ne_bytes());
    }
}

/// What the kernel says in an error message; `None` for an acknowledgement.
pub(crate) fn refusal(message: &[u8]) -> Option<io::Error> {
    match u32_at(message, HEADER_LEN)?.cast_signed() {
        0 => None,
        errno => Some(io::Error::from_raw_os_error(-errno)),
    }
}

/// Each attribute's type and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
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

/// A text attribute without its final zero.
pub(crate) fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    field.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    field.try_into().ok().map(u32::from_ne_bytes)
}
