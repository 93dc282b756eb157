//! The kernel's settings that a device of ours needs, as files below `/proc/sys/net` (sysctl(8)). Pure.
//!
//! Of the host's own interfaces none is touched: strict filtering (`rp_filter`) of the underlay concerns outer
//! addresses only, whose routes are the host's own.

/// Each with its value, and with the device's name in the place of `*`. A kernel without IPv6 lacks some, and takes
/// nothing from anybody there.
const NEEDED: [(&str, &str); 4] = [
    // What lets the neighbours on an interface tell the host where to send (RFC 4861, RFC 792).
    ("ipv6/conf/*/accept_ra", "0"),
    ("ipv6/conf/*/autoconf", "0"),
    ("ipv6/conf/*/accept_redirects", "0"),
    // `ip_forward` sets it for all interfaces there are, and whoever hardens a host takes it from single ones.
    ("ipv4/conf/*/forwarding", "1"),
];

/// Whether the host may send and take what is of 127.0.0.0/8 by an interface. Of our bridge alone, and only while the
/// rules are there that keep everybody else away from loopback (`apply::firewall::loopback`): it is no [`NEEDED`] one.
pub(crate) const ROUTE_LOCALNET: &str = "ipv4/conf/*/route_localnet";

/// Of the two values of an interface and of all, the kernel heeds the larger: 1 would drop what comes by another
/// way than its answer takes, and 2 only what comes from nowhere (Documentation/networking/ip-sysctl).
const RP_FILTER: &str = "ipv4/conf/*/rp_filter";
const STRICT: &str = "1";
const LOOSE: &str = "2";

/// The settings that a device lacks, with the values that they are to have. `value_of` reads one, of an interface or
/// of `all`; `None` for one that the kernel does not have.
pub(crate) fn lacking(
    interface: &str,
    value_of: impl Fn(&str, &str) -> Option<String>,
) -> Vec<(&'static str, &'static str)> {
    let is_other = |(setting, value): &(&str, &str)| {
        value_of(setting, interface).is_some_and(|is| is.trim() != *value)
    };
    let mut lacking: Vec<_> = NEEDED.into_iter().filter(is_other).collect();
    let strictness = |interface| value_of(RP_FILTER, interface).map(|is| is.trim().to_owned());
    if strictness(interface).max(strictness("all")).as_deref() == Some(STRICT) {
        lacking.push((RP_FILTER, LOOSE));
    }
    lacking
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(values: &[(&str, &str, &str)]) -> Vec<(&'static str, &'static str)> {
        lacking("quilt0", |setting, interface| {
            let mut values = values.iter();
            let found = values.find(|(it, of, _)| *it == setting && *of == interface);
            found.map(|(_, _, value)| format!("{value}\n"))
        })
    }

    #[test]
    fn a_setting_that_the_kernel_does_not_have_is_lacked_by_nobody() {
        assert_eq!(lacks(&[]), []);
    }

    #[test]
    fn a_setting_of_another_value_is_to_have_the_one_that_is_needed() {
        let values = [
            ("ipv6/conf/*/accept_ra", "quilt0", "1"),
            ("ipv4/conf/*/forwarding", "quilt0", "0"),
            ("ipv6/conf/*/autoconf", "quilt0", "0"),
        ];
        let expected = [
            ("ipv6/conf/*/accept_ra", "0"),
            ("ipv4/conf/*/forwarding", "1"),
        ];
        assert_eq!(lacks(&values), expected);
    }

    #[test]
    fn strict_filtering_is_what_the_kernel_makes_of_both_values() {
        let filters = |own, all| {
            let values = [(RP_FILTER, "quilt0", own), (RP_FILTER, "all", all)];
            !lacks(&values).is_empty()
        };
        assert!(filters("1", "0") && filters("0", "1") && filters("1", "1"));
        assert!(!filters("0", "0") && !filters("2", "1") && !filters("1", "2"));
    }
}
