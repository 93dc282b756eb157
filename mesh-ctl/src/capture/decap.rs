//! The frame inside VXLAN (RFC 7348, section 5). Pure.

const ETHERNET: usize = 14;
const UDP: usize = 8;
const VXLAN: usize = 8;

/// The inner frame of a frame with VXLAN of that network; `None` if it has none that could be read, such as a fragment.
pub(crate) fn inner(frame: &[u8], port: u16, vni: u32) -> Option<&[u8]> {
    let ip = frame.get(ETHERNET..)?;
    let first = *ip.first()?;
    let fragment = two(ip, 6)? & 0x3fff;
    if frame.get(12..ETHERNET)? != [8, 0] || first >> 4 != 4 || fragment != 0 || *ip.get(9)? != 17 {
        return None;
    }
    let udp = ip.get(usize::from(first & 0xf) * 4..)?;
    if two(udp, 2)? != port {
        return None;
    }
    let vxlan = udp.get(UDP..)?;
    let [flags, _, _, _, a, b, c, _] = *vxlan.first_chunk()?;
    let ours = flags & 0x08 != 0 && u32::from_be_bytes([0, a, b, c]) == vni;
    let inner = vxlan.get(VXLAN..)?;
    (ours && inner.len() >= ETHERNET).then_some(inner)
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(words: u8, fragment: u16, port: u16, flags: u8, vni: u32) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45 + words, 0, 0, 0, 0, 0]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, 17, 0, 0]);
        frame.extend([0; 8]);
        frame.extend(vec![1; usize::from(words) * 4]);
        frame.extend([0, 1]);
        frame.extend(port.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend([flags, 0, 0, 0]);
        frame.extend((vni << 8).to_be_bytes());
        frame.extend([7; 20]);
        frame
    }

    #[test]
    fn the_inner_frame_is_what_follows_the_vxlan_header() {
        for words in [0, 2] {
            let frame = frame(words, 0x4000, 4789, 8, 100);
            assert_eq!(inner(&frame, 4789, 100), Some(&[7; 20][..]), "{words}");
        }
    }

    #[test]
    fn what_is_no_whole_vxlan_of_the_network_has_none() {
        for frame in [
            frame(0, 0x2000, 4789, 8, 100),
            frame(0, 185, 4789, 8, 100),
            frame(0, 0, 4790, 8, 100),
            frame(0, 0, 4789, 0, 100),
            frame(0, 0, 4789, 8, 101),
        ] {
            assert_eq!(inner(&frame, 4789, 100), None);
        }
        let whole = frame(0, 0, 4789, 8, 100);
        for length in 0..whole.len() - 6 {
            assert_eq!(inner(&whole[..length], 4789, 100), None, "{length}");
        }
    }
}
