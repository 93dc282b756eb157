//! Headers, read from bytes and written to them. Numbers are in the byte order of the host.

use std::net::Ipv4Addr;

use mesh_layout::{
    ETHERNET_LEN, ETHERTYPE_IPV4, IPV4_LEN, PROTOCOL_UDP, UDP_LEN, VNI, VXLAN_FLAG_VNI, VXLAN_LEN,
    VXLAN_PORT,
};

use crate::checksum::header_checksum;

/// `N` bytes from `offset` on, if they are there.
pub(crate) fn bytes<const N: usize>(packet: &[u8], offset: usize) -> Option<[u8; N]> {
    packet.get(offset..offset + N)?.try_into().ok()
}

/// An Ethernet header without a VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
    /// EtherType.
    pub ethertype: u16,
}

impl Ethernet {
    /// The header that `packet` begins with; `None` if the packet is too short.
    pub fn read(packet: &[u8]) -> Option<Self> {
        Some(Self {
            destination: bytes(packet, 0)?,
            source: bytes(packet, 6)?,
            ethertype: u16::from_be_bytes(bytes(packet, 12)?),
        })
    }

    /// The header's bytes.
    pub fn bytes(&self) -> [u8; ETHERNET_LEN] {
        let mut header = [0; ETHERNET_LEN];
        header[..6].copy_from_slice(&self.destination);
        header[6..12].copy_from_slice(&self.source);
        header[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        header
    }
}

/// The fixed part of an IPv4 header (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// 4 in every valid header.
    pub version: u8,
    /// Length of the header in words of four bytes: 5 without options.
    pub words: u8,
    /// Type of service: DSCP and congestion mark.
    pub tos: u8,
    /// Length of header and payload in bytes.
    pub total_length: u16,
    /// Identification of the fragments of one packet.
    pub identification: u16,
    /// Whether fragmenting is forbidden.
    pub dont_fragment: bool,
    /// Whether more fragments follow.
    pub more_fragments: bool,
    /// Where this fragment belongs, in units of eight bytes.
    pub fragment_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

impl Ipv4 {
    /// The header that `packet` begins with; `None` if the packet is too short.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let header: [u8; IPV4_LEN] = bytes(packet, 0)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Some(Self {
            version: header[0] >> 4,
            words: header[0] & 0xf,
            tos: header[1],
            total_length: word(2),
            identification: word(4),
            dont_fragment: word(6) & 0x4000 != 0,
            more_fragments: word(6) & 0x2000 != 0,
            fragment_offset: word(6) & 0x1fff,
            ttl: header[8],
            protocol: header[9],
            source: Ipv4Addr::from(bytes::<4>(&header, 12)?),
            destination: Ipv4Addr::from(bytes::<4>(&header, 16)?),
        })
    }

    /// The header's bytes, followed by `options`, with the right checksum.
    ///
    /// # Panics
    ///
    /// If the options are not whole words.
    pub fn bytes(&self, options: &[u8]) -> Vec<u8> {
        assert!(options.len().is_multiple_of(4), "options are padded");
        let fragment = u16::from(self.dont_fragment) << 14
            | u16::from(self.more_fragments) << 13
            | self.fragment_offset & 0x1fff;
        let mut header = vec![self.version << 4 | self.words & 0xf, self.tos];
        header.extend(self.total_length.to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.source.octets());
        header.extend(self.destination.octets());
        header.extend(options);
        let checksum = header_checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    /// Whether version and length are those of a header: RFC 791 knows none shorter than
    /// five words.
    pub fn is_valid(&self) -> bool {
        self.version == 4 && self.words >= 5
    }

    /// Whether options follow the fixed part.
    pub fn has_options(&self) -> bool {
        self.words > 5
    }

    /// Length of the header with its options, in bytes.
    pub fn length(&self) -> usize {
        usize::from(self.words) * 4
    }

    /// Whether this is part of a packet: more follows, or it does not begin here.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Length of header and payload in bytes.
    pub length: u16,
    /// Checksum; 0 if the sender computed none.
    pub checksum: u16,
}

impl Udp {
    /// The header that `packet` begins with; `None` if the packet is too short.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let word = |at| bytes(packet, at).map(u16::from_be_bytes);
        Some(Self {
            source: word(0)?,
            destination: word(2)?,
            length: word(4)?,
            checksum: word(6)?,
        })
    }

    /// The header's bytes.
    pub fn bytes(&self) -> [u8; UDP_LEN] {
        let mut header = [0; UDP_LEN];
        for (at, word) in [self.source, self.destination, self.length, self.checksum]
            .into_iter()
            .enumerate()
        {
            header[at * 2..at * 2 + 2].copy_from_slice(&word.to_be_bytes());
        }
        header
    }
}

/// A VXLAN header (RFC 7348, section 5). The reserved bits are ignored on receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The first byte; [`VXLAN_FLAG_VNI`] says that the VNI is valid.
    pub flags: u8,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
}

impl Vxlan {
    /// The header that `packet` begins with; `None` if the packet is too short.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let header: [u8; VXLAN_LEN] = bytes(packet, 0)?;
        Some(Self {
            flags: header[0],
            vni: u32::from_be_bytes([0, header[4], header[5], header[6]]),
        })
    }

    /// The header's bytes.
    pub fn bytes(&self) -> [u8; VXLAN_LEN] {
        let [_, high, middle, low] = self.vni.to_be_bytes();
        [self.flags, 0, 0, 0, high, middle, low, 0]
    }

    /// Whether the header says that its VNI is valid.
    pub fn has_vni(&self) -> bool {
        self.flags & VXLAN_FLAG_VNI != 0
    }
}

/// An Ethernet frame with an IPv4 packet, to be written. Lengths and checksum are computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Ethernet header.
    pub ethernet: Ethernet,
    /// IPv4 header; its lengths are overwritten.
    pub ip: Ipv4,
    /// IPv4 options, padded to whole words.
    pub options: Vec<u8>,
    /// What follows the IPv4 header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A UDP datagram between two addresses, without a UDP checksum, with 64 hops to live.
    pub fn udp(
        [mac, to_mac]: [[u8; 6]; 2],
        [source, destination]: [Ipv4Addr; 2],
        [port, to_port]: [u16; 2],
        data: &[u8],
    ) -> Self {
        let udp = Udp {
            source: port,
            destination: to_port,
            length: length16(UDP_LEN + data.len()),
            checksum: 0,
        };
        Self {
            ethernet: Ethernet {
                destination: to_mac,
                source: mac,
                ethertype: ETHERTYPE_IPV4,
            },
            ip: Ipv4 {
                version: 4,
                words: 5,
                tos: 0,
                total_length: 0,
                identification: 0x1234,
                dont_fragment: false,
                more_fragments: false,
                fragment_offset: 0,
                ttl: 64,
                protocol: PROTOCOL_UDP,
                source,
                destination,
            },
            options: Vec::new(),
            payload: [&udp.bytes()[..], data].concat(),
        }
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let words = 5 + self.options.len() / 4;
        let ip = Ipv4 {
            words: u8::try_from(words).unwrap_or(u8::MAX),
            total_length: length16(words * 4 + self.payload.len()),
            ..self.ip
        };
        let mut frame = self.ethernet.bytes().to_vec();
        frame.extend(ip.bytes(&self.options));
        frame.extend(&self.payload);
        frame
    }
}

/// A frame on the underlay with a VXLAN packet, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanFrame {
    /// Everything before the UDP header; the payload is not used.
    pub outer: Frame,
    /// UDP header; its length is overwritten.
    pub udp: Udp,
    /// VXLAN header.
    pub vxlan: Vxlan,
    /// The inner Ethernet frame.
    pub inner: Vec<u8>,
}

impl VxlanFrame {
    /// `inner` as a VTEP sends it from one underlay address to another.
    pub fn proper(macs: [[u8; 6]; 2], addresses: [Ipv4Addr; 2], inner: Vec<u8>) -> Self {
        Self {
            outer: Frame::udp(macs, addresses, [0; 2], &[]),
            udp: Udp {
                source: 50_000,
                destination: VXLAN_PORT,
                length: 0,
                checksum: 0,
            },
            vxlan: Vxlan {
                flags: VXLAN_FLAG_VNI,
                vni: VNI,
            },
            inner,
        }
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let udp = Udp {
            length: length16(UDP_LEN + VXLAN_LEN + self.inner.len()),
            ..self.udp
        };
        let mut outer = self.outer.clone();
        outer.payload = [&udp.bytes()[..], &self.vxlan.bytes()[..], &self.inner].concat();
        outer.bytes()
    }
}

/// A length for a 16-bit field, which holds 0 for what is still to be segmented.
pub(crate) fn length16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(0)
}
