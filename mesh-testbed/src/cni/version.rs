//! Versions of the specification.

use std::{fmt, str::FromStr};

use serde_json::{Map, Value, json};

use super::error::CniError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Version {
    /// The first one with CHECK, and with `prevResult` for DEL.
    pub(super) const WITH_CHECK: Self = Self(0, 4, 0);
    /// The first one whose addresses do not say of which family they are.
    const WITHOUT_FAMILY: Self = Self(1, 0, 0);
    /// The first one with GC and STATUS.
    pub(super) const WITH_GC: Self = Self(1, 1, 0);
}

impl FromStr for Version {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        let mut parts = text.split('.').map(str::parse);
        match [parts.next(), parts.next(), parts.next(), parts.next()] {
            [Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None] => {
                Ok(Self(major, minor, patch))
            }
            _ => Err(CniError::List(format!("{text:?} is not a version"))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A result as it is written in another version.
pub(super) fn as_version(mut result: Value, version: Version) -> Value {
    result["cniVersion"] = json!(version.to_string());
    each(&mut result, "ips", |address| {
        if version >= Version::WITHOUT_FAMILY {
            address.remove("version");
        } else if let Some(text) = address.get("address").and_then(Value::as_str) {
            let family = if text.contains(':') { "6" } else { "4" };
            address.insert("version".to_owned(), json!(family));
        }
    });
    if version < Version::WITH_GC {
        each(&mut result, "interfaces", |interface| {
            interface.retain(|key, _| matches!(key.as_str(), "name" | "mac" | "sandbox"));
        });
        each(&mut result, "routes", |route| {
            route.retain(|key, _| matches!(key.as_str(), "dst" | "gw"));
        });
    }
    result
}

fn each(result: &mut Value, key: &str, mut change: impl FnMut(&mut Map<String, Value>)) {
    let entries = result.get_mut(key).and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        if let Some(entry) = entry.as_object_mut() {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("0.10.0") > version("0.4.0"));
        assert!(version("1.1.0") > version("1.0.10"));
        for text in ["1.0", "1.0.0.0", "1.0.x", ""] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_remembered_result_is_written_as_the_list_of_today_has_it() {
        let newest = json!({"cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "mtu": 1450, "sandbox": "/n"}],
            "ips": [{"address": "10.42.1.2/24", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0", "mtu": 1450}]});
        let older = json!({"cniVersion": "0.4.0",
            "interfaces": [{"name": "eth0", "sandbox": "/n"}],
            "ips": [{"address": "10.42.1.2/24", "interface": 0, "version": "4"}],
            "routes": [{"dst": "0.0.0.0/0"}]});
        assert_eq!(as_version(newest, Version(0, 4, 0)), older);
        let same = as_version(older.clone(), Version(1, 0, 0));
        assert_eq!(same["ips"][0].get("version"), None);
        assert_eq!(as_version(same, Version(0, 4, 0)), older);
    }
}
