//! Bounded access to the packet, and the headers in it.
//!
//! Multi-byte fields are in network byte order, as they are in the packet. They are read as
//! whole words although an inner header need not be aligned to four bytes: the verifier
//! refuses such reads on machines that cannot do them, and byte-wise ones would triple the
//! instructions of every access.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_check_mtu, bpf_skb_load_bytes, bpf_skb_pull_data},
    programs::TcContext,
};
use mesh_layout::{
    Config, ETHERNET_LEN, ETHERTYPE_IPV4, Endpoint, IPV4_LEN, PRIORITY_ANOTHERS_CLAIM,
    PRIORITY_TRANSLATED, PRIORITY_UNKNOWN_FRAGMENT, PROTOCOL_UDP, Peer, UDP_LEN, VXLAN_FLAG_VNI,
};

/// IP protocol number of TCP.
pub(crate) const PROTOCOL_TCP: u8 = 6;
/// EtherType of ARP (RFC 826).
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6 (RFC 2464), and the length of its header.
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const IPV6_LEN: usize = 40;
/// Length of a TCP header without options (RFC 9293).
const TCP_LEN: usize = 20;

/// Datagrams that the kernel makes of one at most (`UDP_MAX_SEGMENTS`, linux/udp.h).
const MAX_SEGMENTS: usize = 128;

/// An Ethernet header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ethernet {
    pub(crate) destination: Mac,
    pub(crate) source: Mac,
    pub(crate) ethertype: u16,
}

/// A MAC address in the halfwords it is read and written by: byte-wise, which is what the
/// compiler makes of `[u8; 6]`, comparing two takes 35 instructions instead of nine.
pub(crate) type Mac = [u16; 3];

/// A MAC address of a map's entry.
#[inline(always)]
pub(crate) fn mac(bytes: &[u8; 6]) -> Mac {
    let halfwords: *const u16 = bytes.as_ptr().cast();
    // SAFETY: six bytes either way, and in every layout at an even offset of an entry that is
    // aligned to four bytes or more (checked below).
    unsafe { [*halfwords, *halfwords.add(1), *halfwords.add(2)] }
}

impl Ethernet {
    /// Makes this the header of an IPv4 packet from one MAC address to another. Halfword by
    /// halfword: a whole header would be put together on the stack and copied by a call.
    #[inline(always)]
    pub(crate) fn set(&mut self, from: &[u8; 6], to: &[u8; 6]) {
        for (field, [first, second, third]) in [
            (&mut self.destination, mac(to)),
            (&mut self.source, mac(from)),
        ] {
            field[0] = first;
            field[1] = second;
            field[2] = third;
        }
        self.ethertype = ETHERTYPE_IPV4.to_be();
    }
}

const _: () = {
    assert!(core::mem::offset_of!(Config, overlay_mac).is_multiple_of(2));
    assert!(core::mem::offset_of!(Config, bridge_mac).is_multiple_of(2));
    assert!(core::mem::offset_of!(Peer, mac).is_multiple_of(2));
    assert!(core::mem::offset_of!(Endpoint, mac).is_multiple_of(2));
};

/// An IPv4 header without options.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    pub(crate) version_and_length: u8,
    pub(crate) tos: u8,
    pub(crate) total_length: u16,
    pub(crate) identification: u16,
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: u16,
    pub(crate) source: u32,
    pub(crate) destination: u32,
}

/// UDP and VXLAN headers, which always come together here.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UdpVxlan {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) length: u16,
    pub(crate) checksum: u16,
    pub(crate) flags: u32,
    pub(crate) vni: u32,
}

impl UdpVxlan {
    /// Whether the VXLAN header says that its VNI is valid.
    #[inline(always)]
    pub(crate) fn has_vni(&self) -> bool {
        self.flags & (u32::from(VXLAN_FLAG_VNI) << 24).to_be() != 0
    }

    /// The VNI, in the byte order of the host.
    #[inline(always)]
    pub(crate) fn vni(&self) -> u32 {
        u32::from_be(self.vni) >> 8
    }
}

/// Version 4, five words long: the only first byte of an IPv4 header without options.
pub(crate) const VERSION_4_NO_OPTIONS: u8 = 0x45;

/// The bits of [`Ipv4::tos`] that carry congestion marks (RFC 3168).
pub(crate) const ECN_MASK: u8 = 0b11;
/// Congestion experienced.
pub(crate) const ECN_CE: u8 = 0b11;
/// Capable of marks, none seen.
pub(crate) const ECN_ECT0: u8 = 0b10;
/// The same in other words, which routers may give a meaning of their own.
pub(crate) const ECN_ECT1: u8 = 0b01;

impl Ipv4 {
    /// Whether version and header length are possible ones: 4, and at least five words.
    #[inline(always)]
    pub(crate) fn is_valid(&self) -> bool {
        self.version_and_length.wrapping_sub(VERSION_4_NO_OPTIONS) <= 0x4f - VERSION_4_NO_OPTIONS
    }

    /// Length of the header with its options, as it says itself.
    #[inline(always)]
    pub(crate) fn header_len(&self) -> usize {
        usize::from(self.version_and_length & 0xf) * 4
    }

    /// Length of the packet with this header, as it says itself. What follows is padding of the
    /// link, which the kernel cuts off.
    #[inline(always)]
    pub(crate) fn total_len(&self) -> usize {
        usize::from(u16::from_be(self.total_length))
    }

    /// Whether this is a fragment: more fragments follow, or the offset is not zero.
    #[inline(always)]
    pub(crate) fn is_fragment(&self) -> bool {
        self.fragment & 0x3fff_u16.to_be() != 0
    }

    /// The half of the source address in which containers of one node differ: 16 bits is all there is room
    /// for, and all that a checksum overwrites. The other half says whose node's it is.
    #[inline(always)]
    pub(crate) fn half_of_source(&self) -> u32 {
        u32::from_be(self.source) & 0xffff
    }

    /// Whether a router may cut the packet into fragments.
    #[inline(always)]
    pub(crate) fn may_be_fragmented(&self) -> bool {
        self.fragment & 0x4000_u16.to_be() == 0
    }

    /// Whether this is a fragment that does not start with the transport header.
    #[inline(always)]
    pub(crate) fn is_later_fragment(&self) -> bool {
        self.fragment & 0x1fff_u16.to_be() != 0
    }

    /// The header checksum of RFC 791, of a header without options whose checksum is zero.
    #[inline(always)]
    pub(crate) fn compute_checksum(&self) -> u16 {
        !self.sum()
    }

    /// Whether the checksum of a header without options is right.
    #[inline(always)]
    pub(crate) fn has_right_checksum(&self) -> bool {
        self.sum() == 0xffff
    }

    /// The sum of the header's words in ones' complement. It does not care about byte order
    /// (RFC 1071), so neither do we.
    #[inline(always)]
    fn sum(&self) -> u16 {
        let words = [
            u32::from(u16::from_ne_bytes([self.version_and_length, self.tos])),
            u32::from(self.total_length),
            u32::from(self.identification),
            u32::from(self.fragment),
            u32::from(u16::from_ne_bytes([self.ttl, self.protocol])),
            u32::from(self.checksum),
            self.source & 0xffff,
            self.source >> 16,
            self.destination & 0xffff,
            self.destination >> 16,
        ];
        let mut sum = words[0]
            + words[1]
            + words[2]
            + words[3]
            + words[4]
            + words[5]
            + words[6]
            + words[7]
            + words[8]
            + words[9];
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }

    /// Writes the congestion bits and corrects the checksum for it (RFC 1624, equation 3).
    #[inline(always)]
    pub(crate) fn set_mark(&mut self, mark: u8) {
        let before = u16::from_ne_bytes([self.version_and_length, self.tos]);
        self.tos = self.tos & !ECN_MASK | mark;
        let after = u16::from_ne_bytes([self.version_and_length, self.tos]);
        let mut sum = u32::from(!self.checksum) + u32::from(!before) + u32::from(after);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        self.checksum = !(sum as u16);
    }

    /// Takes one from the time to live and corrects the checksum for it (RFC 1624, with the
    /// shortcut for a decrement of the high byte of a word).
    #[inline(always)]
    pub(crate) fn decrement_ttl(&mut self) {
        let sum = u32::from(self.checksum) + u32::from(0x0100_u16.to_be());
        self.checksum = (sum + u32::from(sum >= 0xffff)) as u16;
        self.ttl -= 1;
    }
}

/// The packet a program was called for.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) skb: *mut __sk_buff,
}

impl Packet {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self {
            skb: context.skb.skb,
        }
    }

    /// The header at `offset`, or `None` if it does not lie in the linear part of the packet.
    ///
    /// The pointer is void after any call that changes the packet's length.
    #[inline(always)]
    pub(crate) fn at<T>(self, offset: usize) -> Option<*mut T> {
        // SAFETY: the context is valid as long as the program runs.
        let (start, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        if start + offset + size_of::<T>() > end {
            return None;
        }
        Some((start + offset) as *mut T)
    }

    /// Length of the packet with its Ethernet header.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { (*self.skb).len }
    }

    /// Interface on which the packet arrived or will leave.
    #[inline(always)]
    pub(crate) fn link(self) -> u32 {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { (*self.skb).ifindex }
    }

    /// The packet filter's mark on the frame ([`PRIORITY_ANOTHERS_CLAIM`], [`PRIORITY_UNKNOWN_FRAGMENT`],
    /// [`PRIORITY_TRANSLATED`]), which is taken off; 0 if there is none.
    #[inline(always)]
    pub(crate) fn take_mark(self) -> u32 {
        // SAFETY: the context is valid as long as the program runs, and a program of a tc hook may
        // set the priority.
        unsafe {
            let mark = (*self.skb).priority;
            if mark != PRIORITY_ANOTHERS_CLAIM
                && mark != PRIORITY_UNKNOWN_FRAGMENT
                && mark != PRIORITY_TRANSLATED
            {
                return 0;
            }
            (*self.skb).priority = 0;
            mark
        }
    }

    /// Whether a VLAN tag was taken off the packet and lies beside it.
    #[inline(always)]
    pub(crate) fn has_vlan_tag(self) -> bool {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { (*self.skb).vlan_present != 0 }
    }

    /// The VLAN that a tag taken off the packet names; 0 without one, and with one that only
    /// carries a priority.
    #[inline(always)]
    pub(crate) fn vlan(self) -> u32 {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { (*self.skb).vlan_tci & 0xfff }
    }

    /// Whether an interface is there. An entry of a map outlives its interface while no runtime is
    /// there to change it.
    #[inline(always)]
    pub(crate) fn has_link(self, link: u32) -> bool {
        /// `ENODEV` of the kernel's helpers.
        const NO_DEVICE: i64 = -19;
        let mut mtu = 0;
        // SAFETY: the context is valid as long as the program runs, and so is the stack.
        let answer = unsafe { bpf_check_mtu(self.skb.cast(), link, &mut mtu, 0, 0) };
        answer != NO_DEVICE
    }

    /// Source and destination port, in network byte order. Nearly always they lie where a pointer
    /// reaches them.
    #[inline(always)]
    pub(crate) fn ports(self, ip: &Ipv4) -> Option<[u16; 2]> {
        if ip.header_len() == IPV4_LEN
            && let Some(ports) = self.at::<[u16; 2]>(OUTER_UDP)
        {
            // SAFETY: `at` proved that the ports are in the self.
            return Some(unsafe { *ports });
        }
        let [a, b, c, d] = self.load((OUTER_IP + ip.header_len()) as u32)?;
        Some([u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])])
    }

    /// The header at `offset`, made linear first if it is not, or `None` if the packet ends
    /// before it. Earlier pointers into the packet are void.
    #[inline(always)]
    pub(crate) fn reach<T>(self, offset: usize) -> Option<*mut T> {
        match self.at(offset) {
            Some(header) => Some(header),
            None if self.pull((offset + size_of::<T>()) as u32) => self.at(offset),
            None => None,
        }
    }

    /// Copies bytes out of the packet, linear or not.
    #[inline(always)]
    pub(crate) fn load<const N: usize>(self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the context is valid as long as the program runs, and the buffer as long as said.
        let failed = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32)
        };
        (failed == 0).then_some(bytes)
    }

    /// Whether a VXLAN header of this VNI begins at `offset` of the packet; `None` if the packet
    /// ends before it.
    #[inline(always)]
    pub(crate) fn has_vni(self, offset: u32, vni: u32) -> Option<bool> {
        let [flags, _, _, _, a, b, c, _] = self.load(offset)?;
        Some(flags & VXLAN_FLAG_VNI != 0 && u32::from_be_bytes([0, a, b, c]) == vni)
    }

    /// Whether any datagram that this UDP packet will be cut into (UDP_SEGMENT, udp(7)) has a
    /// VXLAN header of this VNI. The first one's is at `offset`, and says nothing of the others'.
    #[inline(always)]
    pub(crate) fn any_has_vni(self, offset: u32, vni: u32) -> bool {
        let segment = self.segment_size();
        let mut offset = offset;
        for _ in 0..MAX_SEGMENTS {
            match self.has_vni(offset, vni) {
                Some(true) => return true,
                Some(false) if segment != 0 => offset += segment,
                _ => return false,
            }
        }
        // More than the kernel makes: something is hidden.
        true
    }

    /// Makes the first `length` bytes linear, unless the packet is shorter.
    #[inline(always)]
    pub(crate) fn pull(self, length: u32) -> bool {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { bpf_skb_pull_data(self.skb, length) == 0 }
    }

    /// Payload bytes per packet on the wire, of a packet that stands for several; 0 for one
    /// that is just itself.
    #[inline(always)]
    pub(crate) fn segment_size(self) -> u32 {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { (*self.skb).gso_size }
    }

    /// Packets on the wire that this one stands for. `ip` is the inner IPv4 header, at `ip_offset`.
    #[inline(always)]
    pub(crate) fn segments(self, ip: &Ipv4, ip_offset: usize) -> u64 {
        self.on_the_wire(ip, ip_offset).packets
    }

    /// What comes of the packet on the wire: itself, or the segments of one that is still to be segmented or
    /// was merged. `ip` is the inner IPv4 header, at `ip_offset`.
    ///
    /// Computed from the segment size, because the kernel forgets the number of segments when
    /// a packet is encapsulated, and tells the longest only of a device's MTU. Of other protocols than
    /// TCP and UDP the size says nothing (SCTP's segments are as long as they are), and the packet counts as
    /// one.
    #[inline(always)]
    pub(crate) fn on_the_wire(self, ip: &Ipv4, ip_offset: usize) -> OnTheWire {
        let whole = OnTheWire {
            packets: 1,
            longest: self.len() - ip_offset as u32,
        };
        let segment = self.segment_size();
        if segment == 0 {
            return whole;
        }
        let transport = ip_offset + ip.header_len();
        let transport_len = match ip.protocol {
            PROTOCOL_UDP => UDP_LEN as u32,
            // TCP's header length is in the upper half of its byte 12, in words of 4 bytes.
            PROTOCOL_TCP => match self.at::<[u8; TCP_LEN]>(transport) {
                // SAFETY: `at` proved that the header is in the packet.
                Some(header) => u32::from(unsafe { (*header)[12] } >> 4) * 4,
                None => TCP_LEN as u32,
            },
            _ => return whole,
        };
        let headers = transport as u32 + transport_len;
        let payload = self.len().saturating_sub(headers);
        let longest = if payload < segment { payload } else { segment };
        OnTheWire {
            packets: u64::from(payload.div_ceil(segment).max(1)),
            longest: headers - ip_offset as u32 + longest,
        }
    }
}

/// What comes of a packet on the wire.
#[derive(Clone, Copy)]
pub(crate) struct OnTheWire {
    /// How many packets.
    pub(crate) packets: u64,
    /// Length of the longest, from its IPv4 header on.
    pub(crate) longest: u32,
}

/// Offset of the first IPv4 header.
pub(crate) const OUTER_IP: usize = ETHERNET_LEN;
/// Offset of the UDP and VXLAN headers of an encapsulated packet.
pub(crate) const OUTER_UDP: usize = OUTER_IP + IPV4_LEN;
/// Offset of the inner Ethernet header of an encapsulated packet.
pub(crate) const INNER_ETHERNET: usize = OUTER_UDP + size_of::<UdpVxlan>();
/// Offset of the inner IPv4 header of an encapsulated packet.
pub(crate) const INNER_IP: usize = INNER_ETHERNET + ETHERNET_LEN;
