//! Who an address is leased to.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The longest name of an engine or a network, in bytes.
const MAX_NAME: usize = 63;
/// The longest container id, in bytes: those of engines have 64.
const MAX_CONTAINER: usize = 128;
/// The longest name of an interface: `IFNAMSIZ` (16) less the terminating zero.
const MAX_INTERFACE: usize = 15;

/// Who an address is leased to: one interface of one container in one network of one engine. Engines
/// side by side on a node share its subnet, and none can release what another holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    engine: String,
    network: String,
    container: String,
    interface: String,
}

/// A part of an [`Owner`] that breaks a rule. Each names the value and the rule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OwnerError {
    /// Nothing was given.
    #[error("owner: {part} is empty")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// Longer than is taken.
    #[error("owner: {part} {value:?} has {len} bytes, at most {max} are taken")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its beginning.
        value: String,
        /// Its length.
        len: usize,
        /// The longest that is taken.
        max: usize,
    },
    /// A character that is not taken.
    #[error(
        "owner: {part} {value:?} may hold letters, digits, '_', '.' and '-' of ASCII, and begins with a \
         letter or a digit"
    )]
    Character {
        /// Which part.
        part: &'static str,
        /// The value.
        value: String,
    },
    /// Not what the kernel takes for an interface's name (`dev_valid_name`).
    #[error(
        "owner: interface {0:?} is not a name: '/', ':', '%' and white space are not allowed, nor are \".\", \
         \"..\", \"all\" and \"default\""
    )]
    Interface(String),
}

impl Owner {
    /// An owner, if each part obeys the rules.
    ///
    /// # Errors
    ///
    /// The part that does not: engine and network have up to 63 bytes, the container's id 128, all of
    /// letters, digits, `_`, `.` and `-` (as CNI and engines have them); the interface is the name
    /// that it has inside the container.
    pub fn new(
        engine: &str,
        network: &str,
        container: &str,
        interface: &str,
    ) -> Result<Self, OwnerError> {
        check("engine", engine, MAX_NAME)?;
        check("network", network, MAX_NAME)?;
        check("container", container, MAX_CONTAINER)?;
        check_length("interface", interface, MAX_INTERFACE)?;
        // The kernel puts a number in the place of "%d".
        let bad = |c: char| "/:%".contains(c) || c.is_whitespace() || c.is_control();
        // Of the last two the kernel has settings by these names (net.ipv4.conf).
        let taken = [".", "..", "all", "default"].contains(&interface);
        if taken || interface.contains(bad) {
            return Err(OwnerError::Interface(interface.to_owned()));
        }
        Ok(Self {
            engine: engine.to_owned(),
            network: network.to_owned(),
            container: container.to_owned(),
            interface: interface.to_owned(),
        })
    }

    /// The engine, such as "docker" or "podman".
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The engine's network.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The container's id, as the engine has it.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Name of the interface inside the container.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Name of the host's end of its veth pair: the same whoever asks, and no other owner's.
    pub fn link_name(&self) -> String {
        self.name_with("qm")
    }

    /// Name of the container's end of that pair while it lies on the host, where an engine that moves it into
    /// the container by itself finds it.
    pub fn handed_over_name(&self) -> String {
        self.name_with("qe")
    }

    fn name_with(&self, prefix: &str) -> String {
        let digest = Sha256::digest(self.to_string());
        // Six bytes: two of a node's thousand interfaces have one name once in 500 million nodes.
        let digits = digest.iter().take(6).map(|byte| format!("{byte:02x}"));
        digits.fold(prefix.to_owned(), |name, digits| name + &digits)
    }
}

/// An owner as it is written.
impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        let mut parts = text.splitn(4, '/');
        let mut part = || parts.next().unwrap_or_default();
        Self::new(part(), part(), part(), part())
    }
}

impl fmt::Display for Owner {
    /// `engine/network/container/interface`: none of the parts holds a slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.engine, self.network, self.container, self.interface
        )
    }
}

fn check(part: &'static str, value: &str, max: usize) -> Result<(), OwnerError> {
    check_length(part, value, max)?;
    let begins = value.starts_with(|c: char| c.is_ascii_alphanumeric());
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !begins || !value.chars().all(good) {
        return Err(OwnerError::Character {
            part,
            value: value.to_owned(),
        });
    }
    Ok(())
}

fn check_length(part: &'static str, value: &str, max: usize) -> Result<(), OwnerError> {
    if value.is_empty() {
        return Err(OwnerError::Empty { part });
    }
    if value.len() > max {
        return Err(OwnerError::TooLong {
            part,
            value: value.chars().take(40).collect(),
            len: value.len(),
            max,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_written_with_slashes_that_none_of_its_parts_has() {
        let owner = Owner::new("podman", "web_net", "3f.1-a", "eth0").unwrap();
        assert_eq!(owner.to_string(), "podman/web_net/3f.1-a/eth0");
        assert_eq!("podman/web_net/3f.1-a/eth0".parse(), Ok(owner));
        for text in ["", "podman/web_net/3f.1-a", "podman/web_net/3f.1-a/eth0/1"] {
            assert!(text.parse::<Owner>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn both_ends_of_a_pair_have_names_of_their_own_that_an_interface_may_have() {
        let owner = Owner::new("docker", "quilt", "web", "eth0").unwrap();
        let (link, end) = (owner.link_name(), owner.handed_over_name());
        assert_eq!((&link[..2], &end[..2]), ("qm", "qe"));
        assert_eq!(link[2..], end[2..]);
        for name in [&link, &end] {
            assert!(Owner::new("docker", "quilt", "web", name).is_ok(), "{name}");
        }
        let other = Owner::new("docker", "quilt", "db", "eth0").unwrap();
        assert_ne!(other.handed_over_name(), end);
    }

    #[test]
    fn each_part_that_breaks_a_rule_is_named_with_the_rule() {
        let long = "x".repeat(200);
        for (parts, words) in [
            (["", "n", "c", "eth0"], "engine is empty"),
            (["e", "n/m", "c", "eth0"], "network \"n/m\""),
            (["e", "n", "../c", "eth0"], "container \"../c\""),
            (["e", "n", "größe", "eth0"], "ASCII"),
            (["e", "n", "-c", "eth0"], "begins"),
            (["e", "n", &long, "eth0"], "200 bytes, at most 128"),
            (["e", "n", "c", "an-interface-too-long"], "at most 15"),
            (["e", "n", "c", "a b"], "interface \"a b\""),
            (["e", "n", "c", ".."], "interface \"..\""),
            (["e", "n", "c", "eth%d"], "interface \"eth%d\""),
            (["e", "n", "c", "all"], "interface \"all\""),
            (["e", "n", "c", "eth0\u{7}"], "interface"),
        ] {
            let [engine, network, container, interface] = parts;
            let error = Owner::new(engine, network, container, interface).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
