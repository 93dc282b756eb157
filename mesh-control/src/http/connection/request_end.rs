//! Where a request ends on its connection.

use super::head::Length;

/// What of a request is still to come.
#[derive(Debug)]
pub(super) struct Extent {
    /// Bytes whatever they are: of the head, or of a body whose length is known.
    plain: u64,
    /// After them.
    chunks: Option<Chunk>,
}

/// Where in a body of chunks (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the digits of a chunk's size.
    Size(u64),
    /// Behind them, up to the end of the line.
    Extension(u64),
    /// So many bytes before the next size, two of them the end of the line.
    Data(u64),
    /// In a line of the trailer; whether it has anything in it.
    Trailer(bool),
    /// Nobody knows any more. hyper says so, and closes.
    Lost,
}

impl Extent {
    pub(super) fn new(head: usize, body: Length) -> Self {
        let head = head as u64;
        match body {
            Length::Known(length) => Self {
                plain: head + length,
                chunks: None,
            },
            Length::Chunked => Self {
                plain: head,
                chunks: Some(Chunk::Size(0)),
            },
        }
    }

    /// Whether all of the request has come by.
    pub(super) fn is_over(&self) -> bool {
        self.plain == 0 && self.chunks.is_none()
    }

    /// How many bytes may be read without looking at them.
    pub(super) fn certain(&self) -> u64 {
        self.plain
    }

    /// How many of these bytes, the next on the connection, are of the request.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let plain = usize::try_from(self.plain)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.plain -= plain as u64;
        let mut taken = plain;
        while let (Some(chunk), Some(rest)) = (self.chunks, bytes.get(taken..))
            && let Some(&byte) = rest.first()
        {
            let (next, count) = match chunk {
                Chunk::Data(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    match left - count as u64 {
                        0 => (Some(Chunk::Size(0)), count),
                        left => (Some(Chunk::Data(left)), count),
                    }
                }
                Chunk::Lost => (Some(Chunk::Lost), rest.len()),
                other => (other.after(byte), 1),
            };
            self.chunks = next;
            taken += count;
        }
        taken
    }
}

impl Chunk {
    /// Where the body is after one more byte of a line; `None`: at its end.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size(0) | Self::Extension(0), b'\n') => Self::Trailer(false),
            (Self::Size(size) | Self::Extension(size), b'\n') => Self::Data(size.saturating_add(2)),
            (Self::Size(size), _) => match char::from(byte).to_digit(16) {
                Some(digit) => size
                    .checked_mul(16)
                    .map_or(Self::Lost, |size| Self::Size(size + u64::from(digit))),
                None => Self::Extension(size),
            },
            (Self::Trailer(false), b'\n') => return None,
            (Self::Trailer(_), b'\n') => Self::Trailer(false),
            (Self::Trailer(any), _) => Self::Trailer(any || byte != b'\r'),
            (other, _) => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many bytes it takes, given a few at a time.
    fn taken(mut extent: Extent, bytes: &[u8], piece: usize) -> usize {
        let mut taken = 0;
        for bytes in bytes.chunks(piece) {
            taken += extent.take(bytes);
        }
        assert!(extent.is_over());
        taken
    }

    proptest! {
        #[test]
        fn a_request_ends_where_it_ends_however_it_arrives(
            chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), ";?[a-z=\"]{0,9}"), 0..5),
            trailer in prop::collection::vec("[a-z]{1,5}: [a-z]{0,5}", 0..3),
            head in 0..9_usize,
            piece in 1..50_usize,
        ) {
            let mut body = vec![b'h'; head];
            for (data, extension) in &chunks {
                let extension = extension.trim_start_matches(|first: char| first.is_ascii_hexdigit());
                body.extend(format!("{:x}{extension}\r\n", data.len()).bytes());
                body.extend(data);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n");
            for line in &trailer {
                body.extend(format!("{line}\r\n").bytes());
            }
            body.extend(b"\r\n");
            let length = body.len();
            body.extend(b"GET / HTTP/1.1\r\n\r\n");
            prop_assert_eq!(taken(Extent::new(head, Length::Chunked), &body, piece), length);
            let known = Length::Known((length - head) as u64);
            prop_assert_eq!(taken(Extent::new(head, known), &body, piece), length);
        }

        #[test]
        fn whatever_the_bytes_are_it_takes_no_more_than_there_are(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(Extent::new(3, Length::Chunked).take(&bytes) <= bytes.len());
        }
    }
}
