//! ICMP echo (RFC 792) as a probe sends and recognises it.

use std::net::Ipv4Addr;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const PROTOCOL_ICMP: u8 = 1;
/// Header and token.
const ECHO_LEN: usize = 8 + size_of::<u64>();

/// What makes a probe's questions its own: other processes ping as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: u16,
    pub(super) token: u64,
}

/// An echo request. `sequence` is that of the attempt.
pub(super) fn request(mark: Mark, sequence: u16) -> [u8; ECHO_LEN] {
    let mut packet = [0; ECHO_LEN];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&mark.id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    packet[8..].copy_from_slice(&mark.token.to_be_bytes());
    let checksum = checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Who answered, if an IPv4 packet answers a question with this mark. The kernel has checked
/// its checksums (`icmp_rcv` does before raw sockets see a reply).
pub(super) fn answered_by(packet: &[u8], mark: Mark) -> Option<Ipv4Addr> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 || *packet.get(9)? != PROTOCOL_ICMP {
        return None;
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let echo: &[u8; ECHO_LEN] = packet.get(header..header + ECHO_LEN)?.try_into().ok()?;
    let ours = echo[0] == ECHO_REPLY
        && echo[1] == 0
        && echo[4..6] == mark.id.to_be_bytes()
        && echo[8..] == mark.token.to_be_bytes();
    ours.then(|| source.into())
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8; ECHO_LEN]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    // Eight words carry at most once more.
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: Mark = Mark {
        id: 0x5151,
        token: 0x0123_4567_89ab_cdef,
    };

    /// The reply to a request, as a raw socket gets it.
    fn reply(mark: Mark) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[9] = PROTOCOL_ICMP;
        packet[12..16].copy_from_slice(&[10, 42, 2, 1]);
        packet.extend(request(mark, 1));
        packet[20] = ECHO_REPLY;
        packet
    }

    #[test]
    fn a_reply_names_who_answered() {
        assert_eq!(
            answered_by(&reply(MARK), MARK),
            Some(Ipv4Addr::new(10, 42, 2, 1))
        );
    }

    #[test]
    fn the_reply_to_somebody_elses_ping_is_none() {
        for other in [Mark { id: 1, ..MARK }, Mark { token: 1, ..MARK }] {
            assert_eq!(answered_by(&reply(other), MARK), None);
        }
    }

    #[test]
    fn a_request_is_no_reply() {
        let mut packet = reply(MARK);
        packet[20] = ECHO_REQUEST;
        assert_eq!(answered_by(&packet, MARK), None);
    }

    proptest! {
        #[test]
        fn the_checksum_makes_the_words_of_a_request_sum_up_to_all_ones(
            id: u16, token: u64, sequence: u16,
        ) {
            let sum: u64 = request(Mark { id, token }, sequence)
                .chunks(2)
                .map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])))
                .sum();
            prop_assert_eq!(sum % 0xffff, 0);
            prop_assert_ne!(sum, 0);
        }

        #[test]
        fn no_packet_makes_the_reader_panic(packet in prop::collection::vec(any::<u8>(), 0..64)) {
            answered_by(&packet, MARK);
        }
    }
}
