//! Whether a file can be an undamaged SQLite database, from its header and size alone.
//!
//! SQLite itself reads a file that ends in the middle of a page as if zeros followed, and
//! `PRAGMA quick_check` may then find nothing wrong with rows that are no longer there.

use thiserror::Error;

/// Length of the header, <https://www.sqlite.org/fileformat2.html#the_database_header>.
pub(super) const HEADER_LENGTH: usize = 100;

/// What is wrong with the file.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum HeaderDamage {
    /// It does not begin as SQLite databases do.
    #[error("it is not an SQLite database")]
    NotSqlite,
    /// It is shorter than its header says.
    #[error("it is truncated: {actual} bytes of {expected}")]
    Truncated {
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
}

/// Checks the first bytes of a file that is `file_length` bytes long and not empty.
///
/// `log_pending`: a write-ahead log is beside it that is not empty. The file itself may then be
/// behind in any way, and SQLite will bring it up to date.
pub(super) fn check(
    header: &[u8],
    file_length: u64,
    log_pending: bool,
) -> Result<(), HeaderDamage> {
    if header.len() < HEADER_LENGTH || !header.starts_with(b"SQLite format 3\0") {
        return Err(HeaderDamage::NotSqlite);
    }
    let at = |offset: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[offset..offset + 4]);
        u32::from_be_bytes(bytes)
    };
    // Big-endian; the value 1 stands for 65536.
    let page_size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        size => u64::from(size),
    };
    let (pages, change_counter, version_valid_for) = (at(28), at(24), at(92));
    // The page count is meaningful only if these two agree (section 1.3.7).
    let expected = page_size * u64::from(pages);
    if !log_pending && pages != 0 && change_counter == version_valid_for && file_length < expected {
        return Err(HeaderDamage::Truncated {
            expected,
            actual: file_length,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut header = vec![0; HEADER_LENGTH];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[16..18].copy_from_slice(&4096_u16.to_be_bytes());
        header[28..32].copy_from_slice(&3_u32.to_be_bytes());
        header
    }

    #[test]
    fn a_file_that_ends_within_its_last_page_is_truncated() {
        assert_eq!(check(&header(), 3 * 4096, false), Ok(()));
        let damage = HeaderDamage::Truncated {
            expected: 12288,
            actual: 12287,
        };
        assert_eq!(check(&header(), 3 * 4096 - 1, false), Err(damage));
        assert_eq!(
            check(&header(), 4096, true),
            Ok(()),
            "the log still holds the rest"
        );
    }

    #[test]
    fn garbage_is_not_a_database() {
        assert_eq!(check(b"hello", 5, false), Err(HeaderDamage::NotSqlite));
        assert_eq!(
            check(&[0xa5; HEADER_LENGTH], 4096, true),
            Err(HeaderDamage::NotSqlite)
        );
        assert_eq!(
            check(&header()[..50], 50, false),
            Err(HeaderDamage::NotSqlite)
        );
    }
}
