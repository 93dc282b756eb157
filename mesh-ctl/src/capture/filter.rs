//! Which frames are captured, as a program of the kernel's packet filter (socket(7), `SO_ATTACH_FILTER`). Pure.
//!
//! linux/filter.h has the instructions, and the numbers of what a frame has beside its bytes.

use std::net::Ipv4Addr;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD,
    BPF_LSH, BPF_MISC, BPF_RET, BPF_TAX, BPF_W, sock_filter,
};

/// The most that is captured of a frame: more than the longest there is.
pub(crate) const SNAP: u32 = 262_144;

/// Beside the bytes: the interface, and whether a VLAN tag was taken off.
const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
const VLAN_TAGGED: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT).cast_unsigned();

const IPV4: u32 = 0x0800;
const UDP: u32 = 17;
/// Where the headers have what.
const ETHERTYPE: u32 = 12;
const FIRST_OF_IP: u32 = 14;
const FRAGMENT: u32 = 20;
const PROTOCOL: u32 = 23;
const SOURCE: u32 = 26;
const DESTINATION: u32 = 30;
/// Behind the IP header.
const DESTINATION_PORT: u32 = FIRST_OF_IP + 2;

/// What is captured: VXLAN between this host and one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Indexes of interfaces.
    pub(crate) interfaces: Vec<u32>,
    /// The peer's underlay address.
    pub(crate) peer: Ipv4Addr,
    /// UDP port of VXLAN.
    pub(crate) port: u16,
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// The instruction that many places further on.
    Skip(u8),
    Take,
    Leave,
}

impl Wanted {
    /// The program: how much of a frame is taken, 0 for none. Fragments of UDP between the two are all taken, also
    /// those that have no port.
    ///
    /// A frame with a VLAN tag is one of an interface above, which hears it without.
    pub(crate) fn program(&self) -> Vec<sock_filter> {
        let [load, by_byte, by_half] = [BPF_W, BPF_B, BPF_H].map(|size| BPF_LD | size | BPF_ABS);
        let peer = u32::from(self.peer);
        let mut lines: Vec<(u32, u32, To, To)> = Vec::new();
        let mut add = |code, value, yes, no| lines.push((code, value, yes, no));
        let plain = (To::Next, To::Next);
        let equals = BPF_JMP | BPF_JEQ | BPF_K;
        let count = self.interfaces.len();
        add(load, INTERFACE, plain.0, plain.1);
        for (place, interface) in self.interfaces.iter().enumerate() {
            // Behind the others of the list.
            let rest = u8::try_from(count - place - 1).unwrap_or(u8::MAX);
            let no = if rest == 0 { To::Leave } else { To::Next };
            add(equals, *interface, To::Skip(rest), no);
        }
        add(load, VLAN_TAGGED, plain.0, plain.1);
        add(equals, 0, To::Next, To::Leave);
        add(by_half, ETHERTYPE, plain.0, plain.1);
        add(equals, IPV4, To::Next, To::Leave);
        add(by_byte, PROTOCOL, plain.0, plain.1);
        add(equals, UDP, To::Next, To::Leave);
        add(load, SOURCE, plain.0, plain.1);
        add(equals, peer, To::Skip(2), To::Next);
        add(load, DESTINATION, plain.0, plain.1);
        add(equals, peer, To::Next, To::Leave);
        add(by_half, FRAGMENT, plain.0, plain.1);
        add(BPF_JMP | BPF_JSET | BPF_K, 0x1fff, To::Take, To::Next);
        // The length of the IP header into the index register.
        add(by_byte, FIRST_OF_IP, plain.0, plain.1);
        add(BPF_ALU | BPF_AND | BPF_K, 0xf, plain.0, plain.1);
        add(BPF_ALU | BPF_LSH | BPF_K, 2, plain.0, plain.1);
        add(BPF_MISC | BPF_TAX, 0, plain.0, plain.1);
        add(BPF_LD | BPF_H | BPF_IND, DESTINATION_PORT, plain.0, plain.1);
        add(equals, self.port.into(), To::Take, To::Leave);
        assemble(&lines)
    }
}

/// Puts the two ends behind the lines, and says how far each is.
fn assemble(lines: &[(u32, u32, To, To)]) -> Vec<sock_filter> {
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| sock_filter {
        // Codes have 16 bits at most.
        code: code as u16,
        jt,
        jf,
        k,
    };
    let count = lines.len();
    let mut program: Vec<sock_filter> = lines
        .iter()
        .enumerate()
        .map(|(place, &(code, k, yes, no))| {
            let far = |to| match to {
                To::Next => 0,
                To::Skip(places) => places,
                To::Take => u8::try_from(count - place - 1).unwrap_or(u8::MAX),
                To::Leave => u8::try_from(count - place).unwrap_or(u8::MAX),
            };
            instruction(code, k, far(yes), far(no))
        })
        .collect();
    program.push(instruction(BPF_RET | BPF_K, SNAP, 0, 0));
    program.push(instruction(BPF_RET | BPF_K, 0, 0, 0));
    program
}

/// The most interfaces at once: a jump reaches 255 places.
pub(crate) const MOST_INTERFACES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of a frame (Documentation/networking/filter.rst).
    fn run(program: &[sock_filter], frame: &[u8], interface: u32, tagged: bool) -> u32 {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
        loop {
            let line = &program[at];
            at += 1;
            let code = u32::from(line.code);
            let read = |offset: u32, bytes: usize| {
                let from = offset as usize;
                let some = frame.get(from..from + bytes)?;
                Some(some.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
            };
            let jump = |yes: bool| usize::from(if yes { line.jt } else { line.jf });
            let loaded = if code == BPF_LD | BPF_W | BPF_ABS && line.k == INTERFACE {
                Some(Some(interface))
            } else if code == BPF_LD | BPF_W | BPF_ABS && line.k == VLAN_TAGGED {
                Some(Some(u32::from(tagged)))
            } else if code == BPF_LD | BPF_W | BPF_ABS {
                Some(read(line.k, 4))
            } else if code == BPF_LD | BPF_H | BPF_ABS {
                Some(read(line.k, 2))
            } else if code == BPF_LD | BPF_B | BPF_ABS {
                Some(read(line.k, 1))
            } else if code == BPF_LD | BPF_H | BPF_IND {
                Some(read(line.k + x, 2))
            } else {
                None
            };
            match loaded {
                // Beyond the frame.
                Some(None) => return 0,
                Some(Some(value)) => a = value,
                None if code == BPF_RET | BPF_K => return line.k,
                None if code == BPF_JMP | BPF_JEQ | BPF_K => at += jump(a == line.k),
                None if code == BPF_JMP | BPF_JSET | BPF_K => at += jump(a & line.k != 0),
                None if code == BPF_ALU | BPF_AND | BPF_K => a &= line.k,
                None if code == BPF_ALU | BPF_LSH | BPF_K => a <<= line.k,
                None if code == BPF_MISC | BPF_TAX => x = a,
                None => panic!("{code:#x}"),
            }
        }
    }

    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

    /// A UDP datagram with that many words of options, at that place of its packet.
    fn frame(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        port: u16,
        words: u8,
        fragment: u16,
    ) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45 + words, 0, 0, 0, 0, 0]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, 17, 0, 0]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(vec![1; usize::from(words) * 4]);
        frame.extend(50_000_u16.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend([0; 4]);
        frame
    }

    fn wanted(interfaces: usize) -> Wanted {
        Wanted {
            interfaces: (1..=interfaces as u32).map(|it| it * 10).collect(),
            peer: PEER,
            port: 4789,
        }
    }

    #[test]
    fn vxlan_of_the_peer_is_taken_in_both_directions_at_each_interface() {
        for interfaces in [1, 2, 5, MOST_INTERFACES] {
            let program = wanted(interfaces).program();
            let last = interfaces as u32 * 10;
            for (source, destination) in [(PEER, OTHER), (OTHER, PEER)] {
                for words in [0, 3] {
                    let frame = frame(source, destination, 4789, words, 0);
                    for interface in [10, last] {
                        assert_eq!(run(&program, &frame, interface, false), SNAP);
                    }
                    assert_eq!(run(&program, &frame, last + 1, false), 0);
                    assert_eq!(run(&program, &frame, 10, true), 0, "another interface's");
                }
            }
        }
    }

    #[test]
    fn others_and_other_ports_are_left_and_fragments_of_the_peers_are_not() {
        let program = wanted(1).program();
        let run = |frame: &[u8]| run(&program, frame, 10, false);
        assert_eq!(run(&frame(OTHER, OTHER, 4789, 0, 0)), 0);
        assert_eq!(run(&frame(PEER, OTHER, 53, 0, 0)), 0);
        assert_eq!(
            run(&frame(PEER, OTHER, 4789, 0, 0x2000)),
            SNAP,
            "the first fragment"
        );
        assert_eq!(run(&frame(PEER, OTHER, 1, 0, 0x00b9)), SNAP, "a later one");
        assert_eq!(run(&frame(OTHER, OTHER, 1, 0, 0x00b9)), 0);
        let whole = frame(PEER, OTHER, 4789, 0, 0);
        for length in 0..whole.len() - 4 {
            assert_eq!(run(&whole[..length]), 0, "{length}");
        }
        let mut tcp = whole;
        tcp[23] = 6;
        assert_eq!(run(&tcp), 0);
    }

    #[test]
    fn a_jump_reaches_the_end_of_the_longest_program() {
        let program = wanted(MOST_INTERFACES).program();
        assert!(program.len() <= 256, "{}", program.len());
    }
}
