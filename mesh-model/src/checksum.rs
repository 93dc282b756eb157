//! The Internet checksum of IPv4 headers.

use mesh_layout::IPV4_LEN;

use crate::Ecn;

/// Sum of the 16-bit words in ones' complement (RFC 1071). A last odd byte counts as the
/// upper half of a word.
fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    words.fold(0, add)
}

/// Addition in ones' complement: the carry comes back in below.
fn add(left: u16, right: u16) -> u16 {
    let (sum, carry) = left.overflowing_add(right);
    sum + u16::from(carry)
}

/// The checksum of an IPv4 header (RFC 791). The header's own checksum field must be zero;
/// the checksum of a header with its right checksum in place is zero.
pub fn header_checksum(header: &[u8]) -> u16 {
    !ones_complement_sum(header)
}

/// Takes one from the time to live of the IPv4 header that `packet` begins with, and corrects
/// its checksum by equation 3 of RFC 1624: HC' = ~(~HC + ~m + m'), with the word of TTL and
/// protocol for m. So a checksum that was wrong stays wrong.
///
/// # Panics
///
/// If the packet is shorter than the header, or its time to live is zero: a router has
/// dropped it before.
pub fn decrement_ttl(packet: &mut [u8]) {
    assert!(packet.len() >= IPV4_LEN, "a whole IPv4 header");
    assert_ne!(packet[8], 0, "a packet that may still live");
    change_word(packet, 8, |[ttl, protocol]| [ttl - 1, protocol]);
}

/// Writes the congestion mark of the IPv4 header that `packet` begins with, unless it has it, and corrects its
/// checksum in the same way.
pub(crate) fn set_mark(packet: &mut [u8], mark: Ecn) {
    if Ecn::of(packet[1]) != mark {
        change_word(packet, 0, |[version, tos]| {
            [version, tos & !0b11 | mark.bits()]
        });
    }
}

/// Changes a word of an IPv4 header, and its checksum with it (RFC 1624, equation 3).
fn change_word(header: &mut [u8], at: usize, change: impl FnOnce([u8; 2]) -> [u8; 2]) {
    let word = |at: usize, header: &[u8]| u16::from_be_bytes([header[at], header[at + 1]]);
    let before = word(at, header);
    let changed = change([header[at], header[at + 1]]);
    header[at..at + 2].copy_from_slice(&changed);
    let checksum = !add(add(!word(10, header), !before), word(at, header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071's readers: a header with its checksum in place.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn the_checksum_of_a_header_that_carries_it_is_zero() {
        assert_eq!(header_checksum(&HEADER), 0);
        let mut blank = HEADER;
        blank[10..12].fill(0);
        assert_eq!(header_checksum(&blank), 0xb861);
    }

    #[test]
    fn decrementing_keeps_every_right_checksum_right() {
        for identification in 0..=u16::MAX {
            let mut header = HEADER;
            header[4..6].copy_from_slice(&identification.to_be_bytes());
            header[10..12].fill(0);
            let checksum = header_checksum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            decrement_ttl(&mut header);
            assert_eq!(header[8], HEADER[8] - 1);
            assert_eq!(header_checksum(&header), 0, "{identification}");
        }
    }

    #[test]
    fn a_mark_keeps_the_rest_of_the_type_of_service_and_a_right_checksum_right() {
        for (tos, mark) in (0..=u8::MAX)
            .flat_map(|tos| [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce].map(|mark| (tos, mark)))
        {
            let mut header = HEADER;
            header[1] = tos;
            header[10..12].fill(0);
            let checksum = header_checksum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            set_mark(&mut header, mark);
            assert_eq!(header[1], tos & 0xfc | mark.bits());
            assert_eq!(header_checksum(&header), 0, "{tos} {mark:?}");
        }
    }

    #[test]
    fn decrementing_keeps_a_wrong_checksum_wrong() {
        let mut header = HEADER;
        header[10] ^= 0x55;
        decrement_ttl(&mut header);
        assert_ne!(header_checksum(&header), 0);
    }
}
