//! The lines of the journal.
//!
//! The first says what the file is, and each of the others tells of one change. They are text, for
//! whoever looks with a pager:
//!
//! ```text
//! quilt-mesh leases v1 <16 hexadecimal digits>
//! <16 hexadecimal digits> {"subnet":"10.42.1.0/24"}
//! <16 hexadecimal digits> {"subnet":"10.42.1.0/24","lease":{"address":"10.42.1.2", …},"life":"…"}
//! <16 hexadecimal digits> {"released":"10.42.1.2"}
//! ```
//!
//! The digits are the first 64 bits of the SHA-256 of the rest of the line: of the JSON, and in the
//! first line of what stands before them. A lease names the subnet that it is of, and if it has an
//! endpoint the life in which that was made, so that each line can be understood if others are lost.
//! Members may be added in this version; one that is missing has its default.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Change, Lease};

const MAGIC: &str = "quilt-mesh leases ";
const VERSION: &str = "v1";

/// Length of a checksum, in hexadecimal digits.
const SUM: usize = 16;

/// What the first line of a file is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// This program reads what follows.
    Ours,
    /// Another version, whole: another program wrote it.
    Version(String),
    /// No first line, or a damaged one.
    Damaged,
}

/// What one line tells.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// The subnet from here on.
    pub(crate) subnet: Option<Ipv4Net>,
    /// A lease, as it is from here on.
    pub(crate) lease: Option<Lease>,
    /// The life in which the lease's endpoint was made.
    pub(crate) life: Option<String>,
    /// An address that was released.
    pub(crate) released: Option<Ipv4Addr>,
}

/// Why a line is not used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum RecordError {
    #[error("it does not have the checksum with which it begins")]
    Checksum,
    #[error("its content cannot be read: {0}")]
    Content(String),
}

#[derive(Serialize, Deserialize)]
struct Body<L, S> {
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    subnet: Option<Ipv4Net>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    lease: Option<L>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    life: Option<S>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    released: Option<Ipv4Addr>,
}

// `default` alone would ask for a default of what is inside.
fn none<T>() -> Option<T> {
    None
}

/// The first line, with its line feed.
pub(crate) fn header() -> String {
    header_of(VERSION)
}

/// The first line of a version, with its line feed. All versions have such a line.
pub(crate) fn header_of(version: &str) -> String {
    let text = format!("{MAGIC}{version}");
    format!("{text} {}\n", checksum(text.as_bytes()))
}

/// Reads the first line, without its line feed.
pub(crate) fn read_header(line: &[u8]) -> Header {
    let version = || {
        let (text, sum) = str::from_utf8(line).ok()?.rsplit_once(' ')?;
        (sum == checksum(text.as_bytes())).then(|| text.strip_prefix(MAGIC))?
    };
    match version() {
        Some(VERSION) => Header::Ours,
        Some(other) => Header::Version(other.chars().take(16).collect()),
        None => Header::Damaged,
    }
}

/// Appends the line of a change, of a pool that has this subnet in this life.
pub(crate) fn encode(
    change: &Change,
    subnet: Option<Ipv4Net>,
    life: &str,
    file: &mut Vec<u8>,
) -> serde_json::Result<()> {
    let mut body: Body<&Lease, &str> = Body {
        subnet: None,
        lease: None,
        life: None,
        released: None,
    };
    match change {
        Change::Subnet(new) => body.subnet = Some(*new),
        Change::Released(address) => body.released = Some(*address),
        Change::Leased(lease) => {
            body.subnet = subnet;
            body.life = lease.endpoint.as_ref().map(|_| life);
            body.lease = Some(lease);
        }
    }
    let content = serde_json::to_vec(&body)?;
    file.extend(checksum(&content).bytes());
    file.push(b' ');
    file.extend(content);
    file.push(b'\n');
    Ok(())
}

/// Reads a line other than the first, without its line feed.
pub(crate) fn decode(line: &[u8]) -> Result<Record, RecordError> {
    let (sum, rest) = line.split_at_checked(SUM).ok_or(RecordError::Checksum)?;
    let content = rest.strip_prefix(b" ").ok_or(RecordError::Checksum)?;
    if sum != checksum(content).as_bytes() {
        return Err(RecordError::Checksum);
    }
    let body: Body<Lease, String> =
        serde_json::from_slice(content).map_err(|error| RecordError::Content(error.to_string()))?;
    Ok(Record {
        subnet: body.subnet,
        lease: body.lease,
        life: body.life,
        released: body.released,
    })
}

/// Parts a damaged line at what may have been line feeds: before each whole line in it. The only part
/// is the line itself if there is none.
pub(crate) fn part(line: &[u8]) -> Vec<&[u8]> {
    // No text inside a whole line looks like this: JSON puts a backslash before a quote.
    let begins = |text: &[u8]| {
        let (sum, rest) = text.split_at_checked(SUM).unwrap_or_default();
        rest.starts_with(b" {\"") && sum.iter().all(u8::is_ascii_hexdigit)
    };
    let mut parts = Vec::new();
    let mut end = line.len();
    for start in (1..line.len()).rev() {
        let text = &line[start..end.max(start)];
        if begins(text) && decode(text).is_ok() {
            parts.push(text);
            end = start - 1;
        }
    }
    parts.push(&line[..end]);
    parts.reverse();
    parts
}

fn checksum(content: &[u8]) -> String {
    let mut text = String::with_capacity(SUM);
    for byte in &Sha256::digest(content)[..SUM / 2] {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(content: &str) -> Vec<u8> {
        format!("{} {content}", checksum(content.as_bytes())).into_bytes()
    }

    #[test]
    fn the_first_line_names_the_version_and_a_flipped_bit_is_no_other_version() {
        let header = header();
        let line = header.strip_suffix('\n').unwrap();
        assert_eq!(read_header(line.as_bytes()), Header::Ours);
        let newer = header_of("v2");
        let expected = Header::Version("v2".to_owned());
        assert_eq!(read_header(newer.trim_end().as_bytes()), expected);
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut bytes = line.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                assert_eq!(read_header(&bytes), Header::Damaged);
            }
        }
    }

    #[test]
    fn members_that_are_missing_have_their_defaults_and_unknown_ones_are_passed_over() {
        let record = decode(&line(
            r#"{"later":[1],"lease":{"address":"10.42.1.2","later":{},"lifetime":"released",
            "owner":{"engine":"e","network":"n","container":"c","interface":"eth0","later":1}}}"#,
        ));
        let lease = record.unwrap().lease.unwrap();
        assert_eq!(lease.since, 0);
        assert_eq!((lease.namespace, lease.endpoint), (None, None));
        // An endpoint of a program that knew of no others than those in a namespace.
        let record = decode(&line(
            r#"{"lease":{"address":"10.42.1.2","lifetime":"released",
            "owner":{"engine":"e","network":"n","container":"c","interface":"eth0"},
            "endpoint":{"link":"qm1","mac":[2,83,10,42,1,2],"mtu":1450}}}"#,
        ));
        let endpoint = record.unwrap().lease.unwrap().endpoint.unwrap();
        assert!(!endpoint.moved_by_engine && !endpoint.settled);
        let nothing = decode(&line("{}")).unwrap();
        assert_eq!((nothing.subnet, nothing.lease), (None, None));
        let error = decode(&line(r#"{"lease":7}"#)).unwrap_err();
        assert!(matches!(error, RecordError::Content(_)), "{error}");
    }

    #[test]
    fn lines_whose_line_feed_is_damaged_are_parted() {
        let (one, another) = (line(r#"{"released":"10.42.1.2"}"#), line(r#"{"a":1}"#));
        let merged = [&one[..], b"x", &another, b"y", &one].concat();
        assert_eq!(part(&merged), [&one[..], &another, &one]);
        let merged = [b"no line", &b"x"[..], &another].concat();
        assert_eq!(part(&merged), [&b"no line"[..], &another]);
        assert_eq!(part(b"no line"), [b"no line"]);
        assert_eq!(part(b""), [b""]);
    }
}
