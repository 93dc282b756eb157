//! An address that somebody holds.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Endpoint, Owner};

/// The most names that a lease has.
pub const MAX_NAMES: usize = 32;
/// The most labels that a lease has.
pub const MAX_LABELS: usize = 64;
/// The most bytes that all names and labels of a lease have.
pub const MAX_LABEL_BYTES: usize = 8 * 1024;

/// The longest DNS name, in bytes (RFC 1035).
const MAX_NAME_BYTES: usize = 253;

/// An address that somebody holds, and what its owner said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Who holds it.
    pub owner: Owner,
    /// Names and labels of the container.
    #[serde(flatten)]
    pub named: NamedLabels,
    /// The container's network namespace, if its owner named it: the lease goes with it.
    #[serde(default)]
    pub namespace: Option<NetworkNamespace>,
    /// How long it may last.
    pub lifetime: Lifetime,
    /// When it was leased, in seconds since 1970.
    #[serde(default)]
    pub since: u64,
    /// What was made for the container.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
}

/// A container's network namespace, as its owner named it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkNamespace {
    /// The path that leads to it, or led to it: of processes such paths are used again.
    pub path: PathBuf,
    /// Inode of the namespace, which tells it from others while they all live.
    pub inode: u64,
}

/// How long a lease may last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Until it is released: the container outlives a restart of its host, as those of Docker do.
    Released,
    /// Until the host's network namespace ends, which this names: no container outlives it.
    Life(String),
}

/// Names and labels of a container, kept for whoever looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedLabels {
    /// Names by which the container is known.
    #[serde(default)]
    pub names: Vec<String>,
    /// Whatever its engine says of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Names or labels that break a rule. Each names the value and the rule.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaseError {
    /// Not a DNS name (RFC 1123).
    #[error(
        "name {0:?} is not a DNS name: labels of letters, digits, '-' and '_', at most 63 bytes each and 253 \
         together"
    )]
    Name(String),
    /// A label without a key, or with a control character.
    #[error("label {0:?} has no key, or a control character in it")]
    Label(String),
    /// Too many.
    #[error("{given} {what} are given, at most {max} are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        given: usize,
        /// How many are taken.
        max: usize,
    },
}

impl NamedLabels {
    /// Checks names and labels.
    ///
    /// # Errors
    ///
    /// The first that breaks a rule, with the rule.
    pub fn check(&self) -> Result<(), LeaseError> {
        let too_many = |what, given, max| match given > max {
            true => Err(LeaseError::TooMany { what, given, max }),
            false => Ok(()),
        };
        too_many("names", self.names.len(), MAX_NAMES)?;
        too_many("labels", self.labels.len(), MAX_LABELS)?;
        let names = self.names.iter().map(String::len);
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| key.len() + value.len());
        let bytes = names.chain(labels).sum();
        too_many("bytes of names and labels", bytes, MAX_LABEL_BYTES)?;
        if let Some(name) = self.names.iter().find(|name| !is_dns_name(name)) {
            return Err(LeaseError::Name(name.chars().take(64).collect()));
        }
        let bad = |text: &str| text.contains(|c: char| c.is_control());
        let label = self
            .labels
            .iter()
            .find(|(key, value)| key.is_empty() || bad(key) || bad(value));
        match label {
            Some((key, _)) => Err(LeaseError::Label(key.chars().take(64).collect())),
            None => Ok(()),
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(good)
    };
    name.len() <= MAX_NAME_BYTES && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Result<(), LeaseError> {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let labels = BTreeMap::new();
        NamedLabels { names, labels }.check()
    }

    #[test]
    fn names_are_those_that_dns_can_answer_for() {
        assert_eq!(names(&["web", "web-1.shop", "a_b"]), Ok(()));
        for bad in ["", "a b", "größe", "a..b", &"x".repeat(64), "a/b"] {
            let error = names(&[bad]).unwrap_err();
            assert!(matches!(error, LeaseError::Name(_)), "{bad:?}: {error}");
        }
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let many = vec!["a"; MAX_NAMES + 1];
        assert!(names(&many).unwrap_err().to_string().contains("33 names"));
        let labels = [("key".to_owned(), "x".repeat(MAX_LABEL_BYTES))].into();
        let error = NamedLabels {
            names: Vec::new(),
            labels,
        }
        .check()
        .unwrap_err();
        assert!(error.to_string().contains("at most 8192"), "{error}");
        let labels = [(String::new(), String::new())].into();
        let error = NamedLabels {
            names: Vec::new(),
            labels,
        }
        .check()
        .unwrap_err();
        assert!(matches!(error, LeaseError::Label(_)));
    }
}
