//! A series of kernels, and the newest package of it.

use std::{fmt, str::FromStr};

use crate::error::Error;

/// A series of kernels, e.g. 6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    major: u16,
    minor: u16,
}

impl Series {
    /// How programs are attached to interfaces: tcx came with 6.6 (commit e420bed02507). Where
    /// [none loads](Self::has_fast_path), [`NO_FAST_PATH`](crate::NO_FAST_PATH).
    pub fn attach_mode(self) -> &'static str {
        if !self.has_fast_path() {
            return crate::NO_FAST_PATH;
        }
        match self >= (Self { major: 6, minor: 6 }) {
            true => "tcx",
            false => "clsact",
        }
    }

    /// Whether the fast path's programs load: they tell the kernel that what they put before a packet
    /// ends in an Ethernet header (`BPF_F_ADJ_ROOM_ENCAP_L2_ETH`, Linux 5.13, commit d01b59c9ae94), and
    /// ask it what fits the way (`bpf_check_mtu`, 5.12, commit 34b2021cc616).
    pub fn has_fast_path(self) -> bool {
        self >= Self {
            major: 5,
            minor: 13,
        }
    }

    /// The series of a package with a kernel; `None` for other packages, among them those that only
    /// name the newest.
    pub fn of_package(name: &str) -> Option<Self> {
        let release = name
            .strip_prefix("linux-image-")?
            .strip_suffix("-cloud-amd64")?;
        let (major, rest) = release.split_once('.')?;
        // Behind the minor number comes more of the version.
        let (minor, _) = rest.split_once('.')?;
        format!("{major}.{minor}").parse().ok()
    }

    /// With what the names of Debian's packages of this series begin.
    pub fn package_prefix(self) -> String {
        format!("linux-image-{self}.")
    }

    /// The newest of these packages that holds a kernel for virtual machines of this series:
    /// the same source as the one for hardware, with fewer drivers. Names look like
    /// `linux-image-6.1.0-56-cloud-amd64` and `linux-image-6.12.117+deb12-cloud-amd64`; those
    /// on `-unsigned` and `-dbg` hold the same again, or symbols.
    pub fn newest<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let prefix = self.package_prefix();
        names
            .into_iter()
            .filter(|name| name.starts_with(&prefix) && name.ends_with("-cloud-amd64"))
            .max_by_key(|name| numbers(name))
    }
}

/// The numbers in a name: ABI numbers are compared as such, so that -9 is older than -56.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

impl FromStr for Series {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::Series(text.to_owned());
        let (major, minor) = text.split_once('.').ok_or_else(refused)?;
        let number = |digits: &str| {
            // `parse` alone would take "+6".
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())
                .flatten()
                .ok_or_else(refused)
        };
        Ok(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What apt knows on Debian 12, shortened.
    const NAMES: [&str; 9] = [
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64-dbg",
        "linux-image-6.1.0-57-cloud-amd64-unsigned",
        "linux-image-6.1.0-58-rt-amd64",
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.12.100+deb12-cloud-amd64",
        "linux-image-6.12.17+deb12-cloud-amd64",
        "linux-image-6.18.3+deb13-cloud-amd64",
    ];

    fn series(text: &str) -> Series {
        text.parse().unwrap()
    }

    #[test]
    fn the_newest_kernel_is_the_one_with_the_highest_numbers() {
        assert_eq!(
            series("6.1").newest(NAMES),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            series("6.12").newest(NAMES),
            Some("linux-image-6.12.100+deb12-cloud-amd64")
        );
        assert_eq!(series("6.6").newest(NAMES), None);
    }

    #[test]
    fn a_package_tells_its_series_unless_it_holds_no_kernel() {
        for (name, of) in [
            ("linux-image-5.10.0-46-cloud-amd64", Some("5.10")),
            ("linux-image-7.3.4+deb13-cloud-amd64", Some("7.3")),
            ("linux-image-6.12-cloud-amd64", None),
            ("linux-image-cloud-amd64", None),
            ("linux-image-6.1.0-58-rt-amd64", None),
        ] {
            assert_eq!(Series::of_package(name), of.map(series), "{name}");
        }
    }

    #[test]
    fn kernels_before_5_13_have_no_fast_path() {
        for (text, has) in [
            ("4.19", false),
            ("5.10", false),
            ("5.13", true),
            ("6.1", true),
        ] {
            assert_eq!(series(text).has_fast_path(), has, "{text}");
        }
    }

    #[test]
    fn kernels_before_6_6_have_no_tcx() {
        for (text, mode) in [
            ("5.15", "clsact"),
            ("6.1", "clsact"),
            ("6.5", "clsact"),
            ("6.6", "tcx"),
            ("6.12", "tcx"),
            ("7.0", "tcx"),
        ] {
            assert_eq!(series(text).attach_mode(), mode, "{text}");
        }
    }

    #[test]
    fn what_is_no_series_is_refused_with_the_form_that_is() {
        for text in [
            "", "6", "6.", ".1", "6.1.2", "6.x", "+6.1", "6.1 ", "6.99999",
        ] {
            let error = text.parse::<Series>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        assert_eq!(series("6.12").to_string(), "6.12");
    }
}
