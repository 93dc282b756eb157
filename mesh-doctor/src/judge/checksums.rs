//! Whether what arrives has right checksums. Pure.

use mesh_problems::{Problem, catalog::host::CHECKSUMS_WRONG};

/// Single ones come from anywhere, as broken packets do on any network.
const FEW: u64 = 3;

/// Of how many UDP datagrams the host has found a wrong checksum, before and after a while.
pub(crate) fn judge(before: Option<u64>, after: Option<u64>) -> Option<Problem> {
    let more = after?.saturating_sub(before?);
    (more >= FEW).then(|| {
        Problem::new(
            &CHECKSUMS_WRONG,
            format!(
                "{more} UDP datagrams with a wrong checksum came while this host was looked at (InCsumErrors of /proc/net/snmp)"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_checksums_that_keep_coming_are_told_and_those_of_the_past_are_not() {
        assert_eq!(judge(Some(1000), Some(1002)), None);
        assert!(judge(Some(1000), Some(1003)).is_some());
        assert_eq!(judge(None, Some(1003)), None);
    }
}
