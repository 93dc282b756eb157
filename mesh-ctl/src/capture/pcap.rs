//! Files of packets, as tcpdump and Wireshark read them (draft-ietf-opsawg-pcap): nanoseconds, Ethernet.
//!
//! Two fixed headers in the byte order of the host: less than what a crate for it would bring, whose last release is years old.

use std::io::{self, Write};

use super::filter::SNAP;

/// Says that times have nanoseconds, and the byte order.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
const LINKTYPE_ETHERNET: u32 = 1;

/// Writes packets.
pub(crate) struct Pcap<W> {
    out: W,
}

impl<W: Write> Pcap<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub(crate) fn begin(mut out: W) -> io::Result<Self> {
        let mut header = MAGIC.to_ne_bytes().to_vec();
        header.extend(VERSION.iter().flat_map(|number| number.to_ne_bytes()));
        // The zone, and how exact times are: zeros, as everybody writes.
        header.extend([0; 8]);
        header.extend(SNAP.to_ne_bytes());
        header.extend(LINKTYPE_ETHERNET.to_ne_bytes());
        out.write_all(&header)?;
        Ok(Self { out })
    }

    /// Adds a frame that was `length` bytes long, of which these are here. `time` is nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub(crate) fn add(&mut self, time: u64, frame: &[u8], length: usize) -> io::Result<()> {
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes();
        let numbers = [
            time / 1_000_000_000,
            time % 1_000_000_000,
            frame.len() as u64,
            length as u64,
        ];
        self.out.write_all(&numbers.map(number).concat())?;
        self.out.write_all(frame)
    }

    /// Hands on what was added.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_header_and_each_frame_its_own() {
        let mut file = Vec::new();
        let mut pcap = Pcap::begin(&mut file).unwrap();
        pcap.add(1_700_000_000_000_000_007, &[1, 2, 3], 60).unwrap();
        pcap.flush().unwrap();
        assert_eq!(file.len(), 24 + 16 + 3);
        let number = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!(number(0), 0xa1b2_3c4d);
        assert_eq!(number(20), 1);
        assert_eq!([24, 28, 32, 36].map(number), [1_700_000_000, 7, 3, 60]);
        assert_eq!(file[40..], [1, 2, 3]);
    }
}
