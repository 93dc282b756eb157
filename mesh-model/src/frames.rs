//! Frames that containers send besides IPv4, to be read and written.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Ethernet, header::bytes};

/// EtherType of ARP.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Length of an IPv6 header (RFC 8200).
pub(crate) const IPV6_LEN: usize = 40;

/// An ARP message between Ethernet and IPv4 addresses (RFC 826) in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpFrame {
    /// Destination and source of the frame.
    pub macs: [[u8; 6]; 2],
    /// 1 for a request, 2 for an answer.
    pub operation: u16,
    /// What the sender says it is: hardware and protocol address.
    pub sender: ([u8; 6], Ipv4Addr),
    /// Whom it asks for or answers.
    pub target: ([u8; 6], Ipv4Addr),
}

impl ArpFrame {
    /// Length of the message.
    const LEN: usize = 28;

    /// Sender's and target's protocol address of the message that `packet` begins with; `None` if
    /// the packet is too short.
    pub(crate) fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let message: [u8; Self::LEN] = bytes(packet, 0)?;
        let address = |at| bytes::<4>(&message, at).map(Ipv4Addr::from);
        Some((address(14)?, address(24)?))
    }

    /// Sender's hardware address of the message that `packet` begins with.
    pub(crate) fn sender_mac(packet: &[u8]) -> Option<[u8; 6]> {
        bytes(packet, 8)
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let [destination, source] = self.macs;
        let ethernet = Ethernet {
            destination,
            source,
            ethertype: ETHERTYPE_ARP,
        };
        let mut frame = ethernet.bytes().to_vec();
        // Ethernet, IPv4, and the lengths of their addresses.
        frame.extend([0, 1, 8, 0, 6, 4]);
        frame.extend(self.operation.to_be_bytes());
        for (mac, address) in [self.sender, self.target] {
            frame.extend(mac);
            frame.extend(address.octets());
        }
        frame
    }
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its protocol number.
    pub kind: u8,
    /// Its second byte: mostly its length.
    pub length: u8,
    /// What follows.
    pub rest: Vec<u8>,
}

impl Extension {
    /// A header of this kind and of eight bytes and `more` times its unit, filled with padding.
    pub fn padded(kind: u8, more: u8) -> Self {
        // Authentication counts words of four bytes, and two of them not (RFC 4302).
        let (length, rest) = match kind {
            51 => (more, 6 + usize::from(more) * 4),
            44 => (0, 6),
            _ => (more, 6 + usize::from(more) * 8),
        };
        let rest = vec![0; rest];
        Self { kind, length, rest }
    }

    /// A fragment header: where the fragment belongs, in units of eight bytes, and whether more
    /// follow.
    pub fn fragment(offset: u16, more: bool) -> Self {
        let place = (offset << 3 | u16::from(more)).to_be_bytes();
        Self {
            kind: 44,
            length: 0,
            rest: [place[0], place[1], 0, 0, 0, 1].to_vec(),
        }
    }
}

/// An IPv6 packet in its frame, from and to link-local addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6Frame {
    /// Destination and source of the frame.
    pub macs: [[u8; 6]; 2],
    /// The chain of extension headers.
    pub extensions: Vec<Extension>,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// What follows the headers.
    pub payload: Vec<u8>,
}

impl Ipv6Frame {
    /// The frame's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let [destination, source] = self.macs;
        let ethernet = Ethernet {
            destination,
            source,
            ethertype: ETHERTYPE_IPV6,
        };
        let kinds = self.extensions.iter().map(|it| it.kind);
        let mut following = kinds.chain([self.protocol]);
        let first = following.next().unwrap_or(self.protocol);
        let mut body = Vec::new();
        for (extension, next) in self.extensions.iter().zip(following) {
            body.extend([next, extension.length]);
            body.extend(&extension.rest);
        }
        body.extend(&self.payload);

        let mut frame = ethernet.bytes().to_vec();
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
        frame.extend([first, 255]);
        frame.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
        // All nodes of the link.
        frame.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
        frame.extend(body);
        frame
    }
}

/// A frame with VLAN tags put into it, the outermost first: of each the EtherType, and priority
/// and identifier.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(frame.len().min(12));
    let tags = tags
        .iter()
        .flat_map(|(kind, tag)| [kind.to_be_bytes(), tag.to_be_bytes()].concat());
    let (macs, rest) = (macs.iter().copied(), rest.iter().copied());
    macs.chain(tags).chain(rest).collect()
}
