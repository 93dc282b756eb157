//! Which MTUs a node's overlay can have.

use std::ops::RangeInclusive;

/// In bytes: from the smallest that IPv4 allows (RFC 791) to the largest packet there is.
pub const MTU_RANGE: RangeInclusive<u32> = 68..=65_535;

/// A number as the MTU of a node, if it can be one.
#[must_use]
pub fn mtu(bytes: u64) -> Option<u32> {
    u32::try_from(bytes)
        .ok()
        .filter(|mtu| MTU_RANGE.contains(mtu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_is_what_an_ipv4_packet_can_be_long() {
        for (bytes, expected) in [
            (0, None),
            (67, None),
            (68, Some(68)),
            (65_535, Some(65_535)),
            (65_536, None),
            ((1 << 32) + 1450, None),
        ] {
            assert_eq!(mtu(bytes), expected, "{bytes}");
        }
    }
}
