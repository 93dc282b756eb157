//! ICMP echo (RFC 792) as a probe sends and recognises it.

use std::net::Ipv4Addr;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const PROTOCOL_ICMP: u8 = 1;
/// Header and token.
const ECHO_LEN: usize = 8 + size_of::<u64>();
/// Of a header without options.
const IPV4_LEN: usize = 20;
/// The shortest IPv4 packet with an echo.
pub(super) const SHORTEST: usize = IPV4_LEN + ECHO_LEN;

/// What makes a probe's questions its own: other processes ping as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: u16,
    pub(super) token: u64,
}

impl Mark {
    /// One that nobody else has.
    pub(super) fn random() -> Self {
        Self {
            id: rand::random(),
            token: rand::random(),
        }
    }
}

/// An echo that bears a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) source: Ipv4Addr,
    /// Whether it is the reply, or else the request.
    pub(super) is_reply: bool,
    pub(super) sequence: u16,
}

/// An echo request. `sequence` is that of the attempt.
pub(super) fn request(mark: Mark, sequence: u16) -> Vec<u8> {
    request_of(mark, sequence, SHORTEST)
}

/// An echo request that makes an IPv4 packet of `length` bytes, but at least [`SHORTEST`].
pub(super) fn request_of(mark: Mark, sequence: u16, length: usize) -> Vec<u8> {
    let mut packet = vec![0; length.max(SHORTEST) - IPV4_LEN];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&mark.id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    packet[8..ECHO_LEN].copy_from_slice(&mark.token.to_be_bytes());
    let checksum = checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The echo in an IPv4 packet, if it bears this mark. The kernel has checked the checksums of a reply (`icmp_rcv` does
/// before raw sockets see it).
pub(super) fn echo(packet: &[u8], mark: Mark) -> Option<Echo> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < IPV4_LEN || *packet.get(9)? != PROTOCOL_ICMP {
        return None;
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let echo: &[u8; ECHO_LEN] = packet.get(header..header + ECHO_LEN)?.try_into().ok()?;
    let ours = [ECHO_REPLY, ECHO_REQUEST].contains(&echo[0])
        && echo[1] == 0
        && echo[4..6] == mark.id.to_be_bytes()
        && echo[8..] == mark.token.to_be_bytes();
    ours.then(|| Echo {
        source: source.into(),
        is_reply: echo[0] == ECHO_REPLY,
        sequence: u16::from_be_bytes([echo[6], echo[7]]),
    })
}

/// Who answered, if an IPv4 packet answers a question with this mark.
pub(super) fn answered_by(packet: &[u8], mark: Mark) -> Option<Ipv4Addr> {
    echo(packet, mark)
        .filter(|it| it.is_reply)
        .map(|it| it.source)
}

/// The Internet checksum (RFC 1071) of at most 64 KiB. An odd byte counts as if a zero followed.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u16::from_be_bytes([high, low]),
        [high] => u16::from_be_bytes([high, 0]),
        _ => 0,
    });
    let sum: u32 = words.map(u32::from).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    // So many words carry at most once more.
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
            id: u16, token: u64, sequence: u16, length in 0..3000_usize,
        ) {
            let request = request_of(Mark { id, token }, sequence, length);
            prop_assert_eq!(request.len(), length.max(SHORTEST) - IPV4_LEN);
            let sum: u64 = request
                .chunks(2)
                .map(|word| u64::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])))
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
